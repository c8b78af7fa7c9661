"""Ratios that hold on any machine: natgym's loop against bare passes, and its pass against a plain one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from generators.conditions import Labels
from generators.first_pass import FirstPass
from generators.nat import NAT
from generators.noise import HashNoise
from generators.schedules import reference
from natgym.policies import FixedPolicy
from natgym.rollouts import play

STEPS = 8
OFFICIAL = 2 * STEPS + 1  # passes of AdaNAT's own loop: two a step, and one for the last features


def plain_logits(weights: dict[str, Tensor], ids_BL: Tensor, label_B: Tensor, heads: int) -> Tensor:
    """Return a U-ViT's logits (B, L, V), written down as the papers describe it; the truth of a test, too.

    Args:
        weights: the state of a `NAT` with long skips, without biases of query, key and value.
        label_B: class ids.
    """

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def embedded(ids: Tensor, name: str) -> Tensor:
        return norm(
            weights[f"{name}.word.weight"][ids] + weights[f"{name}.position.weight"], f"{name}.norm", 1e-6
        )

    def block(x: Tensor, name: str, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            x = linear(torch.cat([x, skip], dim=-1), f"{name}.skip_linear")
        B, L, D = x.shape
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").reshape(B, L, 3, heads, D // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, D)
        x = x + linear(mixed, f"{name}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        return x + linear(hidden, f"{name}.mlp.fc2")

    half = len({name.split(".")[1] for name in weights if name.startswith("in_blocks.")})
    x = torch.cat(
        [embedded(label_B[:, None], "condition_embedding"), embedded(ids_BL, "token_embedding")], dim=1
    )
    skips = []
    for number in range(half):
        x = block(x, f"in_blocks.{number}")
        skips.append(x)
    x = block(x, "mid_block")
    for number in range(half):
        x = block(x, f"out_blocks.{number}", skips.pop())
    x = norm(x, "norm")[:, 1:]
    hidden = norm(F.gelu(linear(x, "head.fc")), "head.norm")
    return hidden @ weights["token_embedding.word.weight"][:-1].T + weights["head.bias"][..., :-1]


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


class Ratio(NamedTuple):
    """A ratio of CPU seconds, of each repeat, and its floor, which is of numbers of passes alone."""

    each: list[float]
    floor: float

    def __str__(self) -> str:
        lowest, _, highest = statistics.quantiles(self.each, n=4) if len(self.each) > 1 else self.each * 3
        spread = f"quartiles {lowest:.3f} and {highest:.3f}, n = {len(self.each)}"
        return f"{statistics.median(self.each):.3f} ({spread}), floor {self.floor:.3f}"


@torch.no_grad()
def ratios(nat: NAT, rows: int, repeats: int) -> dict[str, Ratio]:
    """Return ratios of CPU seconds.

    `loop` and `loop, first pass kept` are a guided decoding of T = 8, against OFFICIAL passes of the
    same network; the floor is the ratio of the numbers of passes. `pass` is a pass against `plain_logits`.
    What is set against each other alternates, step by step and pass by pass, since other work on a machine
    comes and goes.
    """
    classes = nat.config.num_classes or 1
    condition, noise = Labels(torch.arange(rows) % classes, classes), HashNoise(torch.arange(rows))
    ids_BL = torch.full((rows, nat.num_tokens), nat.mask_id)
    weights, kept = dict(nat.state_dict()), FirstPass(nat)
    policy, heads = FixedPolicy(reference(STEPS)), nat.config.heads

    def bare() -> object:
        return nat(ids_BL, condition)

    def plain() -> object:
        return plain_logits(weights, ids_BL, condition.ids_B, heads)

    def loop(first_pass: FirstPass | None = None) -> float:
        """Return the ratio of a decoding, of which two bare passes follow each step, and one the last."""
        moves = play(policy, nat, condition, noise, first_pass=first_pass)
        ours, theirs = 0.0, 0.0
        for _ in range(STEPS):
            ours += seconds(lambda: next(moves))
            theirs += seconds(bare) + seconds(bare)
        return ours / (theirs + seconds(bare))

    def one_pass() -> float:
        ours, theirs = zip(*((seconds(bare), seconds(plain)) for _ in range(STEPS)), strict=True)
        return sum(ours) / sum(theirs)

    kept(condition)  # which keeps it from here on
    found: dict[str, list[float]] = {"loop": [], "loop, first pass kept": [], "pass": []}
    for _ in range(repeats):
        found["loop"].append(loop())
        found["loop, first pass kept"].append(loop(kept))
        found["pass"].append(one_pass())
    passes = 2 * STEPS - 1  # the first step is not guided, and the last state not looked at
    floors = {"loop": passes / OFFICIAL, "loop, first pass kept": (passes - 1) / OFFICIAL, "pass": 1.0}
    return {name: Ratio(values, floors[name]) for name, values in found.items()}


def table(found: dict[str, Ratio], name: str) -> str:
    """Return the ratios as text."""
    lines = [
        f"{name}: seconds of natgym per second of what it is set against; medians, floors of passes alone"
    ]
    lines += [f"{what:<24} {ratio}" for what, ratio in found.items()]
    return "\n".join(lines)
