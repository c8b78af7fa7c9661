"""One of many files is cut short: the error must name it."""
import os, sys, pathlib, tempfile
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import numpy as np
from PIL import Image
from generators.data import open_split
import torch
rng, unnamed = np.random.default_rng(0), []
for ext in ("jpg", "png", "webp", "bmp"):
    tmp = pathlib.Path(tempfile.mkdtemp())
    for c in "ab":
        (tmp / c).mkdir()
        for i in range(20):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp / c / f"{i}.{ext}")
    whole = (tmp / "a" / f"7.{ext}").read_bytes()
    (tmp / "a" / f"7.{ext}").write_bytes(whole[: len(whole) * 2 // 3])
    try:
        for name in ("train", "select", "report"):
            part = open_split(str(tmp), name); part[torch.arange(len(part))]
        text = "no error"
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    print(ext, "->", text[:150])
    if f"7.{ext}" not in text:
        unnamed.append(ext)
print(f"damaged file not named for {', '.join(unnamed) or 'none'}")
sys.exit(1 if unnamed else 0)
