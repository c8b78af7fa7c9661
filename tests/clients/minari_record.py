"""A data set of Minari: 20 images drawn with random actions, of which the first is drawn again."""

import os
import tempfile

import gymnasium
import minari

os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()  # without it, a folder in your home

env = gymnasium.make("natgym:natgym/Decode-v1", steps=4, observation="pooled")
env = minari.DataCollector(env)
env.action_space.seed(0)
for seed in range(20):
    env.reset(seed=seed)
    terminated = False
    while not terminated:
        _, _, terminated, _, _ = env.step(env.action_space.sample())
env.create_dataset("natgym/random-v0", algorithm_name="random")

dataset = minari.load_dataset("natgym/random-v0")
env, first = dataset.recover_environment(), dataset[0]
env.reset(seed=0)
for action, reward in zip(first.actions, first.rewards, strict=True):
    assert env.step(action)[1] == reward  # to the last bit
rewards = [episode.rewards.sum() for episode in dataset]
print(f"{len(rewards)} episodes, mean reward {sum(rewards) / len(rewards):.3f}, the first drawn again")
