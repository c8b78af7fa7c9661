"""PPO of stable-baselines3 on 64 images at once."""

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor
from torch.nn.utils import parameters_to_vector

from agents.sb3 import SB3VecEnv

options = {"steps": 4, "observation": "pooled"}
envs = VecMonitor(SB3VecEnv(gymnasium.make_vec("natgym:natgym/Decode-v1", num_envs=64, **options)))
model = PPO("MultiInputPolicy", envs, n_steps=4, batch_size=64, seed=0)
start = parameters_to_vector(model.policy.parameters())

model.learn(1024)

weights = parameters_to_vector(model.policy.parameters())
assert weights.isfinite().all() and not weights.equal(start)
rewards = [episode["r"] for episode in model.ep_info_buffer]
print(f"{len(rewards)} episodes, mean reward {sum(rewards) / len(rewards):.3f}")
