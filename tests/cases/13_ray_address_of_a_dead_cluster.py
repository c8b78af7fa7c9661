"""RAY_ADDRESS left over from another job: without --address natgym says that it starts a cluster of its own; it must, or fail soon."""
import os, sys, time, pathlib, subprocess
ROOT = os.environ.get("NATGYM_ROOT", ".")
code = f"import sys; sys.path.insert(0, {ROOT!r})\nfrom agents.distributed.cluster import cluster\nwith cluster(None, CPU=1): print('started')"
began = time.time()
env = dict(os.environ, RAY_ADDRESS="127.0.0.1:6555")
limit = int(os.environ.get("LIMIT", 240))
try:
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=limit)
    said = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1][:200]
    print(f"after {time.time() - began:.0f} s: {said}")
    sys.exit(0)
except subprocess.TimeoutExpired:
    print(f"after {limit} s neither a cluster nor an error (measured without a limit: ConnectionError after 841 s)")
    sys.exit(1)
