"""PPO of rsl_rl on 32 images at once."""

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from rsl_rl.env import VecEnv
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict
from torch.nn.utils import parameters_to_vector


class Decode(VecEnv):
    def __init__(self, num_envs, steps):
        options = {"steps": steps, "observation": "pooled"}
        envs = gymnasium.make_vec("natgym:natgym/Decode-v1", num_envs=num_envs, **options)
        self.envs = RecordEpisodeStatistics(envs)
        self.num_envs, self.num_actions = self.envs.action_space.shape
        self.max_episode_length, self.device, self.cfg = steps, envs.unwrapped.device, options
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long)
        self.seen = self.flat(self.envs.reset(seed=0)[0])

    def flat(self, observation):
        parts = [observation[key].flatten(1).float() for key in sorted(observation)]
        return TensorDict({"all": torch.cat(parts, 1)}, batch_size=self.num_envs)

    def get_observations(self):
        return self.seen

    def step(self, actions):
        observation, reward, terminated, _, _ = self.envs.step(actions)  # resets in its last step
        self.seen, done = self.flat(observation), torch.from_numpy(terminated)
        self.episode_length_buf = (self.episode_length_buf + 1) * ~done
        return self.seen, torch.from_numpy(reward).float(), done, {}


normal = {"class_name": "GaussianDistribution", "init_std": 1.0}
config = {
    "num_steps_per_env": 4,
    "obs_groups": {"actor": ["all"], "critic": ["all"]},
    "algorithm": {"class_name": "PPO"},
    "actor": {"class_name": "MLPModel", "hidden_dims": [64], "distribution_cfg": normal},
    "critic": {"class_name": "MLPModel", "hidden_dims": [64]},
}
torch.manual_seed(0)
runner = OnPolicyRunner(Decode(32, steps=4), config)
start = parameters_to_vector(runner.alg.actor.parameters())
runner.learn(8)

weights = parameters_to_vector(runner.alg.actor.parameters())
assert weights.isfinite().all() and not weights.equal(start)
statistics = runner.env.envs
print(f"{statistics.episode_count} episodes, mean reward {np.mean(statistics.return_queue):.3f}")
