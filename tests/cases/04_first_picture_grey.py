"""A colour data set whose first file happens to be greyscale: the other pictures must keep their colours (or it must be said)."""
import os, sys, pathlib, tempfile, warnings
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import numpy as np
from PIL import Image
from generators.data import load_split
tmp = pathlib.Path(tempfile.mkdtemp())
for c, rgb in (("a", (200, 30, 30)), ("b", (30, 30, 200))):
    (tmp / c).mkdir()
    for i in range(25):
        Image.fromarray(np.full((8, 8, 3), rgb, np.uint8)).save(tmp / c / f"{i:02d}.png")
Image.open(tmp / "a" / "00.png").convert("L").save(tmp / "a" / "00.png")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    try:
        part = load_split(str(tmp), "train")
    except ValueError as error:
        print("refused:", error); sys.exit(0)
channels = part.images_NCHW.shape[1]
print(f"49 colour pictures and 1 grey one, which comes first: all are read with {channels} channel(s); warnings: {len(said)}")
sys.exit(0 if channels == 3 or said else 1)
