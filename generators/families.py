"""Hand-made schedules as curves: mask ratio, temperatures and guidance over a generation, by name.

A curve takes the progress of a generation in (0, 1]. Mask ratio and temperatures take
r = (k + 1 - 0.001) / T, the share of steps taken after step k; guidance takes s = (k + 0.001) / T, the share
taken before it. These are the official offsets of AdaNAT; they keep floor(L m) from falling by one through
rounding. Guidance is l_c + w (l_c - l_u): w = 0 is none, and a scale that a paper gives as s = w + 1 has to
be lowered by 1.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from generators.parameters import stacked
from generators.text import split as split

OFFSET = 1e-3
Curve = Callable[[Tensor], Tensor]
Law = tuple[float, float]
"""A temperature at r = 0 and at r = 1, linear between."""


def cosine(r: Tensor) -> Tensor:
    """MaskGIT's mask ratio (Chang et al. 2022)."""
    return torch.cos(math.pi / 2 * r)


def linear(r: Tensor) -> Tensor:
    """As many tokens in each step."""
    return 1 - r


def power(r: Tensor, *, k: float = 2.5) -> Tensor:
    """MaskGIT's 1 - r^k: concave for k > 1, which reveals little at first, convex for k < 1."""
    _require(k > 0, f"k {k}: it must be positive")
    return 1 - r**k


def arccos(r: Tensor) -> Tensor:
    """The mask ratio of TiTok, MaskBit and Halton-MaskGIT: arccos(r) / (pi / 2)."""
    return torch.arccos(r) / (math.pi / 2)


def exponential(r: Tensor, *, tokens: float = 256) -> Tensor:
    """MaskGIT's "exp", 1 - 2^(-log2(L) (1 - r)), for L tokens."""
    _require(tokens > 1, f"tokens {tokens}: it must be above 1")
    return 1 - tokens ** -(1 - r)


def logarithm(r: Tensor, *, tokens: float = 256) -> Tensor:
    """MaskGIT's "log", -log2(r) / log2(L), for L tokens; at most 1."""
    _require(tokens > 1, f"tokens {tokens}: it must be above 1")
    return (-r.log() / math.log(tokens)).clamp(0, 1)


def sigmoid(r: Tensor, *, low: float = -3.0, high: float = 3.0, tau: float = 1.0) -> Tensor:
    """open-muse's piece of a logistic curve between `low` and `high`, scaled to fall from 1 to 0."""
    _require(low < high and tau > 0, f"low {low}, high {high}, tau {tau}: low < high and tau > 0 are needed")
    first, last, value = (
        torch.sigmoid(torch.as_tensor(x, dtype=r.dtype) / tau) for x in (low, high, low + r * (high - low))
    )
    return (last - value) / (last - first)


def beta_cdf(r: Tensor, *, a: float = 2.0, b: float = 2.0) -> Tensor:
    """1 - F(r) of the Beta(a, b) distribution (arXiv 2509.13866), a two-dimensional family to search."""
    from scipy.special import betaincc

    _require(a > 0 and b > 0, f"a {a}, b {b}: both must be positive")
    return torch.from_numpy(betaincc(a, b, r.numpy()))


def ramp(s: Tensor, *, w: float = 1.0) -> Tensor:
    """Guidance that grows linearly (Muse; AdaNAT's reference with w = 1)."""
    return w * s


def constant(s: Tensor, *, w: float = 1.0) -> Tensor:
    """The same guidance in every step."""
    return torch.full_like(s, w)


def interval(s: Tensor, *, w: float = 1.0, start: float = 0.3, end: float = 0.8) -> Tensor:
    """Guidance between two shares of the steps only (Kynkaanniemi et al. 2024); other steps cost one pass."""
    _require(0 <= start < end <= 1, f"start {start}, end {end}: 0 <= start < end <= 1 is needed")
    return w * ((start <= s) & (s <= end)).to(s.dtype)


def power_cosine(s: Tensor, *, w: float = 1.0, power: float = 3.0) -> Tensor:
    """MDT's w (1 - cos(pi s^power)) / 2; TiTok takes power 3, MaskBit 4."""
    _require(power > 0, f"power {power}: it must be positive")
    return w * (1 - torch.cos(math.pi * s**power)) / 2


RATIOS: dict[str, Callable[..., Tensor]] = {
    "cosine": cosine,
    "linear": linear,
    "square": partial(power, k=2.0),
    "root": partial(power, k=0.5),
    "pow": power,
    "arccos": arccos,
    "exp": exponential,
    "log": logarithm,
    "sigmoid": sigmoid,
    "beta-cdf": beta_cdf,
}
GUIDANCES: dict[str, Callable[..., Tensor]] = {
    "ramp": ramp,
    "constant": constant,
    "interval": interval,
    "power-cosine": power_cosine,
}
# Named settings of a curve: AdaNAT's reference, MaskGIT's choice temperature (code), and Gumbel noise that
# drowns the confidences. What a name leaves open is the reference's.
PRESETS: dict[str, tuple[str, dict[str, str]]] = {
    "reference": ("cosine", {}),
    "maskgit": ("cosine", {"remask": "4.5"}),
    "random-order": ("cosine", {"remask": "15", "w": "0"}),
}


def table(
    steps: int,
    ratio: Curve = cosine,
    *,
    remask: Law = (1.0, 0.0),
    sampling: Law = (1.0, 1.0),
    guidance: Curve = ramp,
) -> Tensor:
    """Return decoding parameters (T, K) float64 of curves, by default AdaNAT's reference.

    Args:
        steps: T.
        ratio: r in (0, 1] -> mask ratio after the step, in [0, 1].
        remask: re-mask temperature tau_2 at r = 0 and r = 1.
        sampling: sampling temperature tau_1 at r = 0 and r = 1.
        guidance: s in (0, 1) -> scale w.

    Raises:
        ValueError: there is no step, or a curve's parameter is out of its range.
    """
    _require(steps >= 1, f"steps {steps}: a schedule has at least one step")
    k = torch.arange(steps, dtype=torch.float64)
    progress = (k + 1 - OFFSET) / steps, (k + OFFSET) / steps
    return columns(*progress, ratio=ratio, remask=remask, sampling=sampling, guidance=guidance)


def columns(r: Tensor, s: Tensor, *, ratio: Curve, remask: Law, sampling: Law, guidance: Curve) -> Tensor:
    """Return decoding parameters (N, K) where N times the shares r and s of a generation are done."""
    remasking, drawing = (last + (first - last) * (1 - r) for first, last in (remask, sampling))
    return stacked(
        {
            "mask_ratio": ratio(r),
            "remask_temperature": remasking,
            "sampling_temperature": drawing,
            "guidance_scale": guidance(s),
        }
    )


def parse(spec: str) -> dict[str, Any]:
    """Return the arguments of `table` from NAME or NAME:KEY=VALUE,...

    NAME is one of RATIOS or PRESETS. The keys are the curve's own parameters, `remask` and `sampling` (a
    number, or FIRST~LAST), `guidance` (one of GUIDANCES) and that curve's parameters, as in
    "pow:k=2.5,guidance=interval,w=2,start=.3,end=.8".

    Raises:
        ValueError: a name, a key or a value is not one of these.
    """
    return arguments(*split(spec), spec)


def arguments(
    name: str, settings: Mapping[str, str], spec: str, also: Collection[str] = ()
) -> dict[str, Any]:
    """Return the arguments of `table` from the parts of a spec, which errors quote; see `parse`.

    Args:
        also: further keys that the spec may hold, which errors name.
    """
    curve, preset = PRESETS.get(name, (name, {}))
    settings = preset | dict(settings)
    ratio = _chosen(RATIOS, curve, "curve", spec)
    guidance = _chosen(GUIDANCES, settings.pop("guidance", "ramp"), "guidance", spec)
    of_ratio = parameters(ratio)
    of_guidance = parameters(guidance)
    allowed = ("remask", "sampling", "guidance", *of_ratio, *of_guidance, *also)
    for key in settings:
        _require(key in allowed, f"{key!r} in {spec!r} is not one of {', '.join(allowed)}")
    return {
        "ratio": partial(ratio, **numbers(settings, of_ratio, spec)),
        "remask": _law(settings.get("remask", "1"), "remask", 0.0, spec),
        "sampling": _law(settings.get("sampling", "1"), "sampling", None, spec),
        "guidance": partial(guidance, **numbers(settings, of_guidance, spec)),
    }


def _chosen(
    curves: Mapping[str, Callable[..., Tensor]], name: str, kind: str, spec: str
) -> Callable[..., Tensor]:
    if name not in curves:
        raise ValueError(f"{kind} {name!r} in {spec!r} is not one of {', '.join(curves)}")
    return curves[name]


def parameters(function: Callable[..., Any]) -> list[str]:
    """Return the keyword-only parameters, which a spec may set, without those fixed by `partial`."""
    fixed = function.keywords if isinstance(function, partial) else {}
    every = inspect.signature(function).parameters.values()
    return [p.name for p in every if p.kind is p.KEYWORD_ONLY and p.name not in fixed]


def numbers(settings: Mapping[str, str], names: Collection[str], spec: str) -> dict[str, float]:
    """Return those of `names` that are given, as finite numbers; ValueError if one is none."""
    return {name: _number(settings[name], name, spec) for name in names if name in settings}


def _law(text: str, name: str, last: float | None, spec: str) -> Law:
    """Return FIRST~LAST; a single number ends at `last`, or stays."""
    first, tilde, end = text.partition("~")
    start = _number(first, name, spec)
    return start, _number(end, name, spec) if tilde else (start if last is None else last)


def _number(text: str, name: str, spec: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    _require(math.isfinite(number), f"{name}={text!r} in {spec!r} is not a number")
    return number


def _require(fine: bool, message: str) -> None:
    if not fine:
        raise ValueError(message)
