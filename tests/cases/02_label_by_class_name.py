"""A generator of one's own folder (cat, dog, owl): `generate.py --label owl` ("classes to draw, by name") must work."""
import os, sys, pathlib, tempfile
ROOT = os.environ.get("NATGYM_ROOT", ".")
sys.path[:0] = [ROOT, ROOT + "/experiments"]
import numpy as np, torch
from PIL import Image
tmp = pathlib.Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
for c in ("cat", "dog", "owl"):
    (tmp / "data" / c).mkdir(parents=True)
    for i in range(25):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp / "data" / c / f"{i}.png")
from generators.data import open_split
from generators.nat import NAT, nat_digits
from generators.recipes import build
import generate
from _generate import asked_for
part = open_split(str(tmp / "data"), "train")
net = NAT(nat_digits(**part.condition.geometry)).eval()  # what train_generator.py builds of it
try:
    asked = asked_for(generate.Args(label=("owl",), n=2, output=tmp / "x.png"), net)
    print("--label owl asks for index", int(asked.values[0]), "of", part.class_names)
    sys.exit(0 if part.class_names[int(asked.values[0])] == "owl" else 1)
except ValueError as error:
    print("--label owl:", error); sys.exit(1)
