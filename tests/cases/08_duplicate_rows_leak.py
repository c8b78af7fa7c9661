"""metadata.csv with a row per caption, the same file twice: the picture must not be in train and in report."""
import csv, os, sys, pathlib, tempfile
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import numpy as np
from PIL import Image
from generators.data import open_split
from generators.folders import FolderSpec, list_folder
tmp = pathlib.Path(tempfile.mkdtemp())
rows = []
for i in range(100):
    Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp / f"{i}.png")
    rows += [[f"{i}.png", "ab"[i % 2], "first caption"], [f"{i}.png", "ab"[i % 2], "second caption"]]
with open(tmp / "metadata.csv", "w", newline="") as file:
    csv.writer(file).writerows([["file_name", "label", "text"], *rows])
try:
    paths = list_folder(FolderSpec.parse(str(tmp))).paths
    files = {part: {paths[row] for row in open_split(str(tmp), part).rows_N.tolist()} for part in ("train", "select", "report")}
except ValueError as error:
    print("refused:", error); sys.exit(0)
shared = files["train"] & files["report"]
print(f"{len(shared)} of {len(files['report'])} report pictures are also in train, {len(files['train'] & files['select'])} of {len(files['select'])} select pictures")
sys.exit(1 if shared else 0)
