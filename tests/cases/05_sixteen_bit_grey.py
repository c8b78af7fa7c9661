"""16-bit greyscale PNG and TIFF (microscopes, X-rays): a ramp must stay a ramp, not become white."""
import os, sys, pathlib, tempfile
sys.path.insert(0, os.environ.get("NATGYM_ROOT", "."))
import numpy as np
from PIL import Image
from generators.data import load_split
bad = []
for ext, dtype in (("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")):
    tmp = pathlib.Path(tempfile.mkdtemp())
    ramp = np.linspace(0, 65535, 256).astype(dtype).reshape(16, 16)
    for c in "ab":
        (tmp / c).mkdir()
        for i in range(10):
            Image.fromarray(ramp).save(tmp / c / f"{i}.{ext}")
    try:
        image = load_split(str(tmp), "train").images_NCHW[0]
    except ValueError as error:
        print(ext, dtype, "refused:", error); continue
    levels, white = image.unique().numel(), float((image == 1).float().mean())
    print(f"{ext} {dtype}: mode {Image.open(tmp / 'a' / ('0.' + ext)).mode}, {tuple(image.shape)}, {levels} levels, {white:.1%} pure white")
    if levels < 200:
        bad.append(ext + dtype)
print(f"{len(bad)} of 3 kinds of 16-bit pictures are read as (nearly) all white, without a word")
sys.exit(1 if bad else 0)
