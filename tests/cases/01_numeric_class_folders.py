"""Class folders named 0..11: `generate.py --label 2` must draw folder 2, not the third folder in alphabetical order (10).

Each folder is of one grey level, so that a picture's mean brightness says which folder it came from.
"""
import os, sys, pathlib, tempfile, dataclasses
ROOT = os.environ.get("NATGYM_ROOT", ".")
sys.path[:0] = [ROOT, ROOT + "/experiments"]
import numpy as np, torch
from PIL import Image
torch.set_num_threads(1)
tmp = pathlib.Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
for k in range(12):
    (tmp / "data" / str(k)).mkdir(parents=True)
    for i in range(25):
        level = np.clip(k * 20 + rng.normal(0, 1, (8, 8)), 0, 255).astype(np.uint8)
        Image.fromarray(level).save(tmp / "data" / str(k) / f"{i}.png")
from generators.data import open_split, load_split, tokens
from generators.tokenizers import PatchKMeans
from generators.nat import NAT, nat_digits
from generators.training import Trainer, small_recipe
from natgym.rollouts import rollout
from natgym.policies import FixedPolicy
from generators.schedules import maskgit
part = load_split(str(tmp / "data"), "train")
tokenizer = PatchKMeans.fit(part.images_NCHW, patch=2, codebook_size=24)
ids, condition = tokens(str(tmp / "data"), "train", tokenizer, tmp / "cache")
torch.manual_seed(0)
net = NAT(nat_digits(codebook_size=24, num_classes=12, dropout=0.0))
trainer = Trainer(net, ids, condition, dataclasses.replace(small_recipe(), updates=int(os.environ.get("UPDATES", 800))))
for _ in trainer:
    pass
generator = getattr(trainer, "averaged", None) or net
generator = net.eval()
import generate
from _generate import asked_for
try:
    args = generate.Args(label=("2",), n=20, output=tmp / "x.png")
    asked = asked_for(args, generator)
except ValueError as error:
    print("refused:", error); sys.exit(0)
drawn = rollout(FixedPolicy(maskgit(4)), generator, tokenizer, asked, seed=0)
folder = round(float(drawn.images_NCHW.mean()) * 255 / 20)
print(f"folders {part.class_names}; --label 2 asks for index {asked.values[0]} = folder {part.class_names[int(asked.values[0])]!r}; "
      f"the pictures' brightness is that of folder {folder}")
sys.exit(0 if folder == 2 else 1)
