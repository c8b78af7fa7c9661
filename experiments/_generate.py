"""What generate.py does: images drawn, laid out as a grid or as a sheet, and filmed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _given import Begun, begin, condition_of
from _progress import progress
from generate import PAGE
from torch import Tensor

from agents.named import find_policy
from generators.conditions import Condition, balanced
from natgym.env.recorder import film, save_film, strip
from natgym.env.rendering import as_rgb, to_uint8
from natgym.figures.policies import prompts_figure
from natgym.rollouts import Rollout, rollout
from natgym.runs import write_png
from natgym.task import Task

if TYPE_CHECKING:
    from generate import Args


def asked_for(args: Args, source: Any) -> Condition:
    """Return the condition of each image, of a task or a live generator: all prompts n times, the labels in
    turn, or all there are."""
    task = source if isinstance(source, Task) else Task(generator=source)
    if args.texts:
        return task.named(args.texts * (args.n or 8))
    return balanced(task.named(args.label) if args.label else task.every, args.n or 64)


def write_given(args: Args, task: Task, begun: Begun, drawn: dict[str, Rollout]) -> None:
    """Write a row for each given image and policy: the image with what is drawn anew in one color, then n."""
    cells = list[np.ndarray]()
    shown = begun.shown(task)
    for one in drawn.values():
        images = begun.pasted(one, task.tokenizer.grid) if args.paste else one.images_NCHW.cpu()
        pictures = list(enlarged_like(to_uint8(as_rgb(images)), shown[0]))
        for place, given in enumerate(shown):
            cells += [given, *pictures[place :: len(shown)]]
    columns = len(cells) // (len(shown) * len(drawn))
    save_film(args.output, [[grid(enlarged(np.stack(cells), args.enlarge), columns)]])


def enlarged_like(pictures_NHWC: np.ndarray, picture_HWC: np.ndarray) -> np.ndarray:
    """Return images as large as another, which is larger by a whole factor."""
    return enlarged(pictures_NHWC, len(picture_HWC) // pictures_NHWC.shape[1])


def usual(args: Args, task: Task) -> str:
    """Return the policy that is played unless another is asked for."""
    if args.texts:
        try:
            find_policy("autonat", args.steps, task.generator)
        except ValueError:  # none is shipped
            return "maskgit"
        return "autonat"
    return "maskgit"


def enlarged(pictures_NHWC: np.ndarray, factor: int | None) -> np.ndarray:
    """Return the images, each pixel a square; small ones about 64 pixels high unless a factor is given."""
    factor = factor or max(1, round(64 / pictures_NHWC.shape[1]))
    return pictures_NHWC.repeat(factor, axis=1).repeat(factor, axis=2)


def grid(pictures_NHWC: np.ndarray, columns: int) -> np.ndarray:
    """Return one image (H, W, 3), row by row; the last row is filled up in white."""
    missing = -len(pictures_NHWC) % columns
    filled = np.pad(pictures_NHWC, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=255)
    return strip([list(filled[column::columns]) for column in range(columns)])


def columns_of(args: Args, task: Task, number: int) -> int:
    """Return the columns of a grid of so many images: of prompts a row for each, else the conditions in
    turn if they are few, or a square."""
    if args.texts:
        return args.n or 8
    kinds = len(args.label) or len(task.every)
    return args.columns or (kinds if 1 < kinds <= 20 else math.ceil(math.sqrt(number)))


def write_sheets(args: Args, task: Task, drawn: dict[str, Rollout]) -> None:
    """Write a row for each prompt, a panel for each policy; PAGE prompts a file."""
    names, each = list(args.texts) or ["all"], args.n or (8 if args.texts else 64)
    note = f"{task.name}; row seeds {args.seed} to {args.seed + each - 1}, unselected"
    order = by_prompt(len(names), each)
    for page, path in enumerate(path for path in args.paths if path.suffix == ".png"):
        rows = order[page * PAGE * each : (page + 1) * PAGE * each]
        images = {name: one.images_NCHW[rows].cpu() for name, one in drawn.items()}
        write_png(path, prompts_figure(images, names[page * PAGE : (page + 1) * PAGE], note))


def by_prompt(prompts: int, each: int) -> Tensor:
    """Return the images' numbers prompt by prompt; they are drawn round by round, each on its own noise."""
    return torch.arange(prompts * each).view(each, prompts).T.flatten()


def work(args: Args) -> None:
    torch.set_num_threads(1)
    task = Task.load(args.generator, device=args.device, tokenizer=args.tokenizer)
    names = args.policy or (usual(args, task),)
    policies = {name: find_policy(name, args.steps, task.generator) for name in names}
    begun = begin(args, task) if args.given else None
    condition = asked_for(args, task) if begun is None else condition_of(args, task, begun)
    rows = len(args.texts) if begun is None else len(begun.ids_GL)
    how: dict[str, Any] = {"seed": args.seed, "group": rows or 1, "trail": args.film}
    with progress(total=len(condition) * len(policies), unit="img", unit_scale=True) as bar:
        drawn = {
            name: rollout(policy, task, condition=condition, progress=bar.update, **how)
            for name, policy in policies.items()
        }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    first = next(iter(drawn.values()))
    if begun is not None:
        write_given(args, task, begun, drawn)
    elif args.texts or len(drawn) > 1:
        write_sheets(args, task, drawn)
    else:
        pictures = enlarged(to_uint8(as_rgb(first.images_NCHW)), args.enlarge)
        save_film(args.output, [[grid(pictures, columns_of(args, task, len(condition)))]])
    if args.film:
        order = by_prompt(len(args.texts) or 1, len(condition) // (len(args.texts) or 1)).numpy()
        frames = film(first, task.tokenizer, rows=len(condition))
        columns = columns_of(args, task, len(condition))
        shown = [[grid(np.stack(frame)[order], columns)] for frame in frames]
        save_film(args.paths[-1], shown, fps=args.fps)
    of = f" of {len(args.texts)} prompts" if args.texts else ""
    for name, one in drawn.items():
        said = f"{name}, T = {policies[name].steps}, {one.nfe_N.mean():.1f} passes each"
        print(f"{', '.join(map(str, args.paths))}: {len(condition)} images{of}, {said}")
