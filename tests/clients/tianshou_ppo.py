"""PPO of tianshou on four environments of one image each."""

import gymnasium
from gymnasium.wrappers import FlattenObservation
from tianshou.highlevel.config import OnPolicyTrainingConfig
from tianshou.highlevel.env import EnvFactory, VectorEnvType
from tianshou.highlevel.experiment import ExperimentConfig, PPOExperimentBuilder
from torch.nn.utils import parameters_to_vector


class Decode(EnvFactory):
    def _create_env(self, mode):
        env = gymnasium.make("natgym:natgym/Decode-v1", steps=4, observation="pooled")
        return FlattenObservation(env)  # tianshou's networks know no Dict


training = OnPolicyTrainingConfig(
    max_epochs=2,
    epoch_num_steps=128,
    collection_step_num_env_steps=64,
    num_training_envs=4,
    test_step_num_episodes=20,
)
experiment = PPOExperimentBuilder(
    Decode(VectorEnvType.DUMMY),
    ExperimentConfig(seed=0, watch=False, persistence_enabled=False),
    training,
).build()
world = experiment.create_experiment_world()
start = parameters_to_vector(world.algorithm.policy.parameters())

result = world.trainer.run()

weights = parameters_to_vector(world.algorithm.policy.parameters())
assert weights.isfinite().all() and not weights.equal(start)
print(f"{result.train_episode} episodes, mean reward {result.best_reward:.3f}")
