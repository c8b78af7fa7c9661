"""Gymnasium's own DictInfoToList around the vector environment: infos of the last step must pass its check (arrays)."""
import os, sys
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import gymnasium, natgym
from gymnasium.wrappers.vector import DictInfoToList
envs = DictInfoToList(gymnasium.make_vec("natgym/Decode-v1", num_envs=3, steps=2))
envs.reset(seed=0)
try:
    for step in range(2):
        infos = envs.step(0 * envs.action_space.sample())[-1]
    print("fine:", sorted(infos[0])); sys.exit(0)
except AssertionError:
    print(f"AssertionError at step {step + 1}: info holds torch tensors (tokens, images), which the wrapper refuses"); sys.exit(1)
