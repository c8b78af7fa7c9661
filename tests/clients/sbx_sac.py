"""SAC of sbx (stable-baselines3 in jax) on one image at a time."""

import gymnasium
import jax
import numpy as np
from gymnasium.wrappers import FlattenObservation
from sbx import SAC
from stable_baselines3.common.evaluation import evaluate_policy

env = gymnasium.make("natgym:natgym/Decode-v1", steps=4, observation="pooled")
env = FlattenObservation(env)  # sbx knows no Dict
model = SAC("MlpPolicy", env, learning_starts=32, batch_size=32, buffer_size=1000, seed=0)
start = jax.device_get(model.policy.actor_state.params)

model.learn(96)

weights = jax.device_get(model.policy.actor_state.params)
assert all(np.isfinite(weight).all() for weight in jax.tree.leaves(weights))
assert not jax.tree.all(jax.tree.map(np.array_equal, weights, start))
reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
print(f"{len(model.ep_info_buffer)} episodes, mean reward {reward:.3f}")
