"""PPO of stable-baselines3 on four environments of one image each."""

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from torch.nn.utils import parameters_to_vector

options = {"steps": 4, "observation": "pooled"}
envs = make_vec_env("natgym:natgym/Decode-v1", n_envs=4, seed=0, env_kwargs=options)
model = PPO("MultiInputPolicy", envs, n_steps=16, batch_size=32, seed=0)
start = parameters_to_vector(model.policy.parameters())

model.learn(128)

weights = parameters_to_vector(model.policy.parameters())
assert weights.isfinite().all() and not weights.equal(start)
reward, _ = evaluate_policy(model, envs, n_eval_episodes=20)
print(f"{len(model.ep_info_buffer)} episodes, mean reward {reward:.3f}")
