"""save_pretrained of torch.compile(generator): the folder must load again, or saving must be refused."""
import os, sys, pathlib, tempfile
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import torch
from generators.checkpoints import from_pretrained, save_pretrained, weights_hash
from natgym.task import Task
net = Task.load("digits").generator
compiled, folder = torch.compile(net), pathlib.Path(tempfile.mkdtemp()) / "g"
print("weights_hash equal:", weights_hash(net) == weights_hash(compiled))
try:
    save_pretrained(compiled, folder, task="digits")
except (ValueError, TypeError) as error:
    print("refused:", error); sys.exit(0)
try:
    from_pretrained(folder); print("saved and loaded"); sys.exit(0)
except ValueError as error:
    print("saved without a word; loading says:", str(error)[-130:]); sys.exit(1)
