"""README's own Ray Tune sweep with a schedule file of one's own, named relatively to where the script runs: trials must find it."""
import os, sys, pathlib, subprocess, tempfile
ROOT = os.environ.get("NATGYM_ROOT", ".")
tmp = pathlib.Path(tempfile.mkdtemp())
(tmp / "sweep.py").write_text(f"""
import sys; sys.path.insert(0, {ROOT!r})
from ray import tune
from agents.autonat.tune_search import ScheduleTrial
from generators.schedules import reference
reference(4).save("mine.json")
space = {{"task": "digits", "steps": 4, "images": 40, "schedule": tune.choice(["mine.json"])}}
tuning = tune.TuneConfig(metric="distance", mode="min", num_samples=1, reuse_actors=True)
found = tune.Tuner(ScheduleTrial, param_space=space, tune_config=tuning, run_config=tune.RunConfig(storage_path={str(tmp / 'ray')!r}, verbose=0)).fit()
print("ERRORS", len(found.errors), " ".join(str(found.errors[0]).split())[-200:] if found.errors else "")
""")
env = dict(os.environ, PYTHONPATH=ROOT)
done = subprocess.run([sys.executable, "sweep.py"], cwd=tmp, env=env, capture_output=True, text=True, timeout=500)
line = next((l for l in done.stdout.splitlines() if l.startswith("ERRORS")), done.stderr[-200:])
print(line[:260])
sys.exit(0 if line.startswith("ERRORS 0") else 1)
