"""PPO of skrl on 32 images at once."""

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from skrl.agents.torch.ppo import PPO
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer
from torch import nn
from torch.nn.utils import parameters_to_vector


class Actor(GaussianMixin, Model):
    def __init__(self, **spaces):
        Model.__init__(self, **spaces)
        GaussianMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(self.num_observations, 64), nn.Tanh(), nn.Linear(64, 4))
        self.log_std = nn.Parameter(torch.zeros(4))

    def compute(self, inputs, role=""):
        return self.net(inputs["observations"]), {"log_std": self.log_std}


class Critic(DeterministicMixin, Model):
    def __init__(self, **spaces):
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(self.num_observations, 64), nn.Tanh(), nn.Linear(64, 1))

    def compute(self, inputs, role=""):
        return self.net(inputs["observations"]), {}


options = {"steps": 4, "observation": "pooled"}
envs = gymnasium.make_vec("natgym:natgym/Decode-v1", num_envs=32, **options)
envs = RecordEpisodeStatistics(envs)
env = wrap_env(envs)
spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
torch.manual_seed(0)
models = {"policy": Actor(**spaces, device=env.device), "value": Critic(**spaces, device=env.device)}
start = parameters_to_vector(models["policy"].parameters())
memory = RandomMemory(memory_size=4, num_envs=32, device=env.device)
agent = PPO(models=models, memory=memory, device=env.device, cfg={"rollouts": 4}, **spaces)
SequentialTrainer(env=env, agents=agent, cfg={"timesteps": 32, "headless": True}).train()

weights = parameters_to_vector(models["policy"].parameters())
assert weights.isfinite().all() and not weights.equal(start)
print(f"{envs.episode_count} episodes, mean reward {np.mean(envs.return_queue):.3f}")
