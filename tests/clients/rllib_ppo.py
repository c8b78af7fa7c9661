"""PPO of RLlib, its new API stack, on two images at once."""

import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations

config = (
    PPOConfig()
    .environment("natgym:natgym/Decode-v1", env_config={"steps": 4, "observation": "pooled"})
    .env_runners(
        num_env_runners=0,
        num_envs_per_env_runner=2,
        env_to_module_connector=lambda env, spaces, device: FlattenObservations(),  # it knows no Dict
    )
    .training(train_batch_size_per_learner=128, minibatch_size=64, num_epochs=2)
)
algorithm = config.build_algo()
start = algorithm.get_weights()["default_policy"]

for _ in range(2):
    result = algorithm.train()["env_runners"]

weights = algorithm.get_weights()["default_policy"]
assert all(np.isfinite(weight).all() for weight in weights.values())
assert not all(np.array_equal(weights[key], start[key]) for key in weights)
episodes, reward = result["num_episodes_lifetime"], result["episode_return_mean"]
print(f"{episodes:.0f} episodes, mean reward {reward:.3f}")
algorithm.stop()
