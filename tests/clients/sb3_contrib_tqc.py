"""TQC of sb3-contrib, which explores the whole box of actions before it learns."""

import gymnasium
from sb3_contrib import TQC
from stable_baselines3.common.evaluation import evaluate_policy
from torch.nn.utils import parameters_to_vector

env = gymnasium.make("natgym:natgym/Decode-v1", steps=4, observation="pooled")
model = TQC("MultiInputPolicy", env, learning_starts=32, batch_size=32, buffer_size=1000, seed=0)
start = parameters_to_vector(model.actor.parameters())

model.learn(80)

weights = parameters_to_vector(model.actor.parameters())
assert weights.isfinite().all() and not weights.equal(start)
reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
print(f"{len(model.ep_info_buffer)} episodes, mean reward {reward:.3f}")
