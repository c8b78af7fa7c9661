"""PPO of rl_games on 32 images at once."""

import gymnasium
import numpy as np
import torch
import yaml
from gymnasium.spaces import Box, flatdim
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from rl_games.common import env_configurations, vecenv
from rl_games.common.ivecenv import IVecEnv
from rl_games.torch_runner import Runner
from torch.nn.utils import parameters_to_vector


class Decode(IVecEnv):
    def __init__(self, config_name, num_actors, seed, **options):
        envs = gymnasium.make_vec("natgym:natgym/Decode-v1", num_envs=num_actors, **options)
        self.envs, self.first_seed = RecordEpisodeStatistics(envs), seed

    def get_env_info(self):
        seen = Box(-np.inf, np.inf, (flatdim(self.envs.single_observation_space),))
        return {"observation_space": seen, "action_space": self.envs.single_action_space}

    def flat(self, observation):
        return torch.cat([observation[key].flatten(1).float() for key in sorted(observation)], 1)

    def reset(self):
        return self.flat(self.envs.reset(seed=self.first_seed)[0])

    def step(self, actions):
        observation, reward, terminated, _, _ = self.envs.step(actions)  # resets in its last step
        return self.flat(observation), torch.from_numpy(reward).float(), torch.from_numpy(terminated), {}


SETTINGS = """
seed: 1
algo: {name: a2c_continuous}
model: {name: continuous_a2c_logstd}
network:
  name: actor_critic
  separate: False
  mlp: {units: [64], activation: elu, initializer: {name: default}}
  space:
    continuous:
      {mu_activation: None, sigma_activation: None, mu_init: {name: default},
       sigma_init: {name: const_initializer, val: -1}, fixed_sigma: True}
config: {
  name: decode, env_name: decode, env_config: {steps: 4, observation: pooled}, device: cpu, num_actors: 32,
  horizon_length: 4, minibatch_size: 128, mini_epochs: 4, max_epochs: 8, learning_rate: 3.0e-4,
  lr_schedule: null, gamma: 0.99, tau: 0.95, e_clip: 0.2, clip_value: True, critic_coef: 1,
  entropy_coef: 0.0, bounds_loss_coef: 0.001, grad_norm: 0.5, truncate_grads: True,
  normalize_advantage: True, normalize_input: False, reward_shaper: {scale_value: 1.0}}
"""
vecenv.register("NATGYM", Decode)
env_configurations.register("decode", {"vecenv_type": "NATGYM"})
runner = Runner()
runner.load({"params": yaml.safe_load(SETTINGS)})
agent = runner.algo_factory.create(runner.algo_name, base_name="run", params=runner.params)
start = parameters_to_vector(agent.model.parameters())

agent.train()

weights = parameters_to_vector(agent.model.parameters())
assert weights.isfinite().all() and not weights.equal(start)
envs = agent.vec_env.envs
print(f"{envs.episode_count} episodes, mean reward {np.mean(envs.return_queue):.3f}")
