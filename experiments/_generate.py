"""What generate.py does: images drawn, laid out as a grid, and filmed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _progress import progress

from agents.named import find_policy
from generators.conditions import Condition, named
from natgym.env.recorder import film, save_film, strip
from natgym.env.rendering import as_rgb, to_uint8
from natgym.rollouts import balanced, rollout
from natgym.task import Task

if TYPE_CHECKING:
    from generate import Args


def asked_for(args: Args, generator: Any) -> Condition:
    """Return the condition of each image: the labels in turn, or all of them."""
    pool = generator.conditions()
    if not args.label:
        return balanced(pool, args.n)
    return balanced(named(pool, args.label), args.n)


def enlarged(pictures_NHWC: np.ndarray, factor: int | None) -> np.ndarray:
    """Return the images, each pixel a square; small ones about 64 pixels high unless a factor is given."""
    factor = factor or max(1, round(64 / pictures_NHWC.shape[1]))
    return pictures_NHWC.repeat(factor, axis=1).repeat(factor, axis=2)


def grid(pictures_NHWC: np.ndarray, columns: int) -> np.ndarray:
    """Return one image (H, W, 3), row by row; the last row is filled up in white."""
    missing = -len(pictures_NHWC) % columns
    filled = np.pad(pictures_NHWC, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=255)
    return strip([list(filled[column::columns]) for column in range(columns)])


def work(args: Args) -> None:
    torch.set_num_threads(1)
    task = Task.load(args.generator, device=args.device, tokenizer=args.tokenizer)
    generator = task.generator
    tokenizer = task.tokenizer
    policy = find_policy(args.policy, args.steps, generator)
    condition = asked_for(args, generator)
    with progress(total=args.n, unit="img", unit_scale=True) as bar:
        drawn = rollout(
            policy,
            generator,
            tokenizer,
            condition,
            seed=args.seed,
            trail=args.film,
            progress=bar.update,
        )
    kinds = len(args.label) or len(generator.conditions())
    columns = args.columns or (kinds if 1 < kinds <= 20 else math.ceil(math.sqrt(args.n)))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    pictures = enlarged(to_uint8(as_rgb(drawn.images_NCHW)), args.enlarge)
    save_film(args.output, [[grid(pictures, columns)]])
    if args.film:
        frames = film(drawn, tokenizer, rows=args.n)
        save_film(args.paths[1], [[grid(np.stack(frame), columns)] for frame in frames], fps=args.fps)
    summary = f"{args.n} images, {args.policy}, T = {policy.steps}, {drawn.nfe_N.mean():.1f} passes each"
    print(f"{', '.join(map(str, args.paths))}: {summary}")
