"""metadata.csv where some labels are empty: no class "" may be trained and judged (mmgcd_discover treats such rows as unlabelled)."""
import csv, os, sys, pathlib, tempfile
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import numpy as np
from PIL import Image
from generators.data import open_split
tmp = pathlib.Path(tempfile.mkdtemp())
rows = []
for i in range(60):
    Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp / f"{i}.png")
    rows.append([f"{i}.png", ["cat", "dog", ""][i % 3]])
with open(tmp / "metadata.csv", "w", newline="") as file:
    csv.writer(file).writerows([["file_name", "label"], *rows])
try:
    part = open_split(str(tmp), "train")
except ValueError as error:
    print("refused:", error); sys.exit(0)
print(f"20 of 60 pictures have no label: classes {part.class_names}, {part.condition.geometry}")
sys.exit(1 if "" in part.class_names else 0)
