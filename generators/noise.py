"""Stateless noise: every random number of decoding is a hash of (row seed, step, token, purpose).

The same row therefore gives the same image alone or in a batch, two policies can be compared on the same
noise, and a resumed run needs no generator state. The hash is SplitMix64's finaliser (Steele, Lea and Flood
2014), evaluated on the device in int64; `RecordedNoise` replays noise drawn elsewhere instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor


class Purpose(IntEnum):
    """What a uniform is for; uniforms of different purposes are independent."""

    TOKEN = 1
    GUMBEL = 2
    EPISODE = 3
    CONDITION = 4
    CODE = 5
    PRICE = 6
    ACTION = 7


def _signed(value: int) -> int:
    """Wrap an integer into int64, whose arithmetic torch does modulo 2^64."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


_PURPOSES = 16  # room for more without changing the noise of those that exist
_WEYL = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Return x xor (x >> bits), the shift being logical: torch shifts int64 arithmetically."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1).bitwise_xor_(x)


def mix(x: Tensor) -> Tensor:
    """Scramble int64 values; a bijection whose output bits all depend on all input bits."""
    x = _shifted(x, 30).mul_(_FIRST)
    x = _shifted(x, 27).mul_(_SECOND)
    return _shifted(x, 31)


def hash_uniform(row_seeds_B: Tensor, step: int, num_tokens: int, purpose: Purpose) -> Tensor:
    """Return uniforms (B, L) in the open interval (0, 1), float32, multiples of 2^-24."""
    rows_B = mix(mix(row_seeds_B).add_(_signed(_WEYL * (step * _PURPOSES + purpose))))
    tokens_L = torch.arange(1, num_tokens + 1, device=row_seeds_B.device).mul_(_WEYL)
    bits_BL = mix(mix(rows_B[:, None] + tokens_L)) >> 41  # the top 23 bits, signed
    # 23 bits and the half step are exact in float32: neither 0 nor 1 can appear and no logarithm diverges.
    return (bits_BL.float() + ((1 << 22) + 0.5)).mul_(2.0**-23)


def next_episode(row_seeds_B: Tensor, episode: int) -> Tensor:
    """Return the row seeds of a later episode of the same rows (episode 0 is the seeds themselves)."""
    return row_seeds_B if episode == 0 else mix(mix(row_seeds_B) + _signed(_WEYL * episode + Purpose.EPISODE))


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2^62) that is a function of all parts: (run seed, update, purpose) and so on."""
    plain = tuple(part if isinstance(part, str) else int(part) for part in parts)  # numpy's 3 is 3, too
    digest = hashlib.blake2b(repr(plain).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generator for dropout and initial weights; then put it back."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):  # manual_seed knows the current one only
                torch.cuda.manual_seed(seed)
        yield


class Noise(Protocol):
    """What the decoding step draws from."""

    def categorical(self, logits_BLV: Tensor, step: int) -> Tensor:
        """Draw one code per token, (B, L), from softmax(logits)."""
        ...

    def gumbel(self, step: int, num_tokens: int) -> Tensor | float:
        """Return standard Gumbel noise (B, L)."""
        ...


@dataclass(frozen=True)
class HashNoise:
    """Stateless noise of the rows with these seeds, (B,) int64 on the generator's device."""

    row_seeds_B: Tensor

    @classmethod
    def from_seed(
        cls, seed: int, num_rows: int, device: torch.device | str = "cpu", *, group: int = 1
    ) -> HashNoise:
        """Give row i the seed `seed` + i // `group`, as `reset(seed=seed)` does."""
        return cls(_signed(seed) + torch.arange(num_rows, device=device) // group)

    def categorical(self, logits_BLV: Tensor, step: int) -> Tensor:
        """Draw by inverse distribution function: one uniform per token instead of one per code."""
        cumulative_BLV = logits_BLV.softmax(-1).cumsum_(-1)
        uniform_BL = hash_uniform(self.row_seeds_B, step, logits_BLV.shape[1], Purpose.TOKEN)
        # Scaling by the last sum keeps rounding from pushing a draw past the last code.
        target_BL1 = uniform_BL[..., None] * cumulative_BLV[..., -1:]
        drawn_BL = torch.searchsorted(cumulative_BLV, target_BL1, right=True)[..., 0]
        return drawn_BL.clamp_max(logits_BLV.shape[-1] - 1)

    def gumbel(self, step: int, num_tokens: int) -> Tensor:
        return -torch.log(-torch.log(hash_uniform(self.row_seeds_B, step, num_tokens, Purpose.GUMBEL)))

    def __getitem__(self, index: Tensor | slice) -> HashNoise:
        return type(self)(self.row_seeds_B[index])


class CoupledNoise(HashNoise):
    """Hashed noise whose draws move little where the logits do: Gumbel-max with noise for every code.

    The distribution is that of `HashNoise`. By its single uniform per token, a small change of temperature
    moves all cumulative sums and with them draws of any code; here a token keeps its code unless another one
    overtakes it. For policies that are compared on the same noise, at V times the random numbers.
    """

    def categorical(self, logits_BLV: Tensor, step: int) -> Tensor:
        """Draw the code with the largest sum of logit and Gumbel noise."""
        B, L, V = logits_BLV.shape
        uniform_BLV = hash_uniform(self.row_seeds_B, step, L * V, Purpose.CODE).view(B, L, V)
        return (logits_BLV - torch.log(-torch.log(uniform_BLV))).argmax(-1)


@dataclass(frozen=True)
class RecordedNoise:
    """Noise drawn elsewhere: Gumbel-max noise for the draw (T, B, L, V) and for the confidences (T, B, L).

    None draws the most probable code and adds nothing to the confidences.
    """

    categorical_TBLV: Tensor | None = None
    gumbel_TBL: Tensor | None = None

    def categorical(self, logits_BLV: Tensor, step: int) -> Tensor:
        if self.categorical_TBLV is None:
            return logits_BLV.argmax(-1)
        return (logits_BLV.log_softmax(-1) + self.categorical_TBLV[step]).argmax(-1)

    def gumbel(self, step: int, num_tokens: int) -> Tensor | float:
        return 0.0 if self.gumbel_TBL is None else self.gumbel_TBL[step]
