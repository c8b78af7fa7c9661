"""multiprocessing with spawn, joblib, copying to workers: the one-image environment should pickle (deepcopy works)."""
import os, sys, pickle
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import gymnasium, natgym
env = gymnasium.make("natgym/Decode-v1", steps=2).unwrapped
try:
    pickle.loads(pickle.dumps(env)).reset(seed=0); print("pickled"); sys.exit(0)
except Exception as error:
    print(f"{type(error).__name__}: {str(error)[:120]}"); sys.exit(1)
