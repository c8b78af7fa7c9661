"""Images to go on from, for generate.py: read, cut into what is given and what is drawn, and shown again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from generators.conditions import Condition, balanced
from generators.given import Given, give, hidden_pixels, hidden_region
from generators.pixels import ImageFiles
from natgym.env.rendering import reveal_ids
from natgym.rollouts import Rollout
from natgym.task import Task

if TYPE_CHECKING:
    from generate import Args

SELECT = "select"  # in place of a file: the first EXAMPLES real images of that split
EXAMPLES = 8


class Begun(NamedTuple):
    """G images to go on from.

    Attributes:
        images_GCHW: as they are, in [0, 1].
        ids_GL, hidden_L: their tokens, and which of them are drawn anew.
        own: the conditions of the task's own images; None of files.
    """

    images_GCHW: Tensor
    ids_GL: Tensor
    hidden_L: Tensor
    own: Condition | None

    def shown(self, task: Task) -> list[np.ndarray]:
        """Return each image (H, W, 3) uint8 as its tokens are, what is drawn anew in one color."""
        mask_id = task.generator.mask_id
        masked_GL = self.ids_GL.masked_fill(self.hidden_L, mask_id)
        return list(reveal_ids(task.tokenizer, masked_GL, mask_id, self.ids_GL))

    def pasted(self, drawn: Rollout, grid: tuple[int, int]) -> Tensor:
        """Return the images drawn, with the pixels of the given ones where no token was drawn."""
        height, width = self.images_GCHW.shape[2:]
        hidden = self.hidden_L.view(1, 1, *grid).float()
        drawn_HW = torch.nn.functional.interpolate(hidden, (height, width)) > 0
        times = len(drawn.images_NCHW) // len(self.images_GCHW)
        return torch.where(drawn_HW, drawn.images_NCHW.cpu(), self.images_GCHW.repeat(times, 1, 1, 1))


def begin(args: Args, task: Task) -> Begun:
    """Read what the flags name."""
    tokenizer = task.tokenizer
    _, height, width = tokenizer.image_shape
    if args.mask is None:
        hidden_L = hidden_region(args.region, tokenizer.grid)
    else:
        hidden_L = hidden_pixels(_read([args.mask], (1, height, width))[0, 0] > 127, tokenizer.grid)
    own = None
    if args.given == (SELECT,):
        real = task.images("select")
        rows = torch.arange(min(EXAMPLES, len(real)))
        images_GCHW, own = real[rows], task.read(real.condition[rows])
    else:
        paths = [Path(name) for name in args.given]
        images_GCHW = _read(paths, tokenizer.image_shape).float() / 255
    with torch.no_grad():
        ids_GL = tokenizer.encode(images_GCHW.to(task.device)).cpu().long()
    return Begun(images_GCHW, ids_GL, hidden_L, own)


def _read(paths: Sequence[Path], shape_CHW: tuple[int, int, int]) -> Tensor:
    """Return images (N, C, H, W), uint8, resized and cropped; ValueError if a file is not there."""
    if absent := [path for path in paths if not path.is_file()]:
        raise ValueError(f"{absent[0]} is no file; give the path of an image")
    channels, height, width = shape_CHW
    return ImageFiles(paths, (height, width), "L" if channels == 1 else "RGB")[torch.arange(len(paths))]


def condition_of(args: Args, task: Task, begun: Begun) -> Given:
    """Return what to draw: each image `n` times, round by round."""
    each, G = args.n or 8, len(begun.ids_GL)
    names = args.label or args.texts or (("",) if task.has("encoder") else ())
    if begun.own is not None and not (args.label or args.texts):
        condition = balanced(begun.own, each * G).to(task.place)
    else:
        asked = balanced(task.named(names) if names else task.every, each)
        condition = asked[torch.arange(each, device=asked.device).repeat_interleave(G)]
    return give(condition, begun.ids_GL.repeat(each, 1), begun.hidden_L)
