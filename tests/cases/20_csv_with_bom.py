"""metadata.csv saved by Excel as "CSV UTF-8" begins with a byte order mark: both readers must see the column file_name."""
import csv, os, sys, pathlib, tempfile
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import numpy as np
from PIL import Image
from generators.data import open_split
from natgym.discovery.pairs import PairsConfig, load_pairs
tmp = pathlib.Path(tempfile.mkdtemp()); rows = []
for i in range(20):
    Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp / f"{i}.png")
    rows.append([f"{i}.png", "some words", "ab"[i % 2]])
with open(tmp / "metadata.csv", "w", newline="", encoding="utf-8-sig") as file:
    csv.writer(file).writerows([["file_name", "text", "label"], *rows])
wrong = []
for name, read in (("generators.data", lambda: open_split(str(tmp), "train")), ("discovery", lambda: load_pairs(PairsConfig(data=str(tmp))))):
    try:
        print(name, "reads", len(read()))
    except ValueError as error:
        wrong.append(name); print(name, "says:", str(error)[-90:])
print(f"{len(wrong)} of 2 readers refuse the file; as printed, the message says that 'file_name' is missing and lists 'file_name'")
sys.exit(1 if wrong else 0)
