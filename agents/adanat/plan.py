"""The memory that a training will take, before it begins: measured on some rows of its networks, and computed
for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from agents.adanat import network
from agents.adanat.config import SEARCHED, AdaNATConfig, TrainingConfig
from agents.adanat.learned import new_ppo
from agents.distributed.ranks import Ranks
from generators.conditions import Condition
from generators.live_bytes import LiveBytes
from generators.noise import HashNoise
from generators.parts import Parts
from generators.room import decoding_rows, image_rows
from generators.schedules import DecodeParams
from natgym.env.vector import DecodeVectorEnv
from natgym.metrics.extractors import CHUNK
from natgym.rewards.sums import parts_of
from natgym.rollouts import BATCH

FEW = 64  # images judged to see what a reward takes
ALWAYS = "always"  # the phase of what is held in all of them


@dataclass(frozen=True)
class Need:
    """Memory that is held in one phase of a training, or in all.

    Attributes:
        flag: of `experiments/adanat_ppo.py`, that makes it less; empty if none does.
    """

    phase: str
    what: str
    bytes: int
    flag: str = ""


@dataclass(frozen=True)
class Plan:
    """What a training needs."""

    needs: tuple[Need, ...]

    @property
    def phases(self) -> dict[str, int]:
        """Bytes at the peak of each phase, with what is always held."""
        held = sum(need.bytes for need in self.needs if need.phase == ALWAYS)
        names = dict.fromkeys(need.phase for need in self.needs if need.phase != ALWAYS)
        return {name: held + sum(need.bytes for need in self.needs if need.phase == name) for name in names}

    @property
    def peak(self) -> int:
        """Bytes at the peak of all."""
        return max(self.phases.values())

    def table(self) -> str:
        """Return the plan as text, a line for each need, then the peaks."""
        lines = [f"{'phase':<12} {'what':<44} {'MiB':>12}  less by"]
        lines += [
            f"{need.phase:<12} {need.what:<44} {need.bytes / 2**20:>12,.1f}  {need.flag}"
            for need in self.needs
        ]
        peaks = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in self.phases.items())
        return "\n".join([*lines, f"peaks, with what is always held, in MiB: {peaks}"])

    def refuse_more_than(self, room: int, device: str) -> None:
        """Raise ValueError if the training needs more than a device has free, naming what helps."""
        if self.peak <= room:
            return
        phase = max(self.phases, key=self.phases.__getitem__)
        able = [need for need in self.needs if need.phase in (phase, ALWAYS) and need.flag]
        largest = max(able, key=lambda need: need.bytes, default=None)
        advice = "take a smaller generator" if largest is None else f"{largest.flag} makes it less"
        what = "" if largest is None else f", {largest.bytes / 2**30:,.1f} of them for {largest.what}"
        raise ValueError(
            f"the training needs {self.peak / 2**30:,.1f} GiB in its {phase}{what}; {device} has "
            f"{room / 2**30:,.1f} free: {advice}"
        )


def memory_plan(env: DecodeVectorEnv, config: AdaNATConfig) -> Plan:
    """Return what a training in an environment will take on its device.

    Args:
        env: a few rows of its networks are run; it is not begun.
    """
    few = env.like(num_envs=2, group=1, autoreset=False)  # a buffer of two rows, not of all
    policy = new_ppo(few, replace(config, baseline="critic")).policy
    state, step = _decoding(env)
    decoded = _grown(_decode, env)
    needs = (
        *_held(env, policy),
        *_rollout(env, state, step, decoded),
        *_gradient(env, config, policy),
        *_measurement(env, config, state + step, decoded),
    )
    return Plan(needs)


def _held(env: DecodeVectorEnv, policy: Any) -> Iterator[Need]:
    weights = sum(weight.nbytes for weight in policy.parameters())
    seen = _row_bytes(env)
    stored = sum(size for key, size in seen.items() if key != "features" or "tokens" not in seen)
    yield Need(ALWAYS, "networks", _weights(env))
    yield Need(ALWAYS, "policy, its gradient and Adam's two moments", 4 * weights)
    yield Need(ALWAYS, "rollout buffer", env.num_envs * env.steps * stored, "--observation pooled")


def _rollout(env: DecodeVectorEnv, state: int, step: int, decoded: int) -> Iterator[Need]:
    rows = env.num_envs
    at_once = min(rows, env.micro_batch or decoding_rows(env.generator, env.device))
    drawn = min(rows, image_rows(env.tokenizer.image_shape))
    images = rows * _image_bytes(env)
    # Of several parts, each one's share of an observation lives beside the whole for a moment.
    seen = _row_bytes(env)
    observed = rows * sum(seen.values()) * (1 + (at_once < rows))
    # While a step is taken the last observation is there, too; features that no buffer holds are in it alone.
    last = rows * seen["features"] if "tokens" in seen else 0
    stepping, made = max(at_once * step + last, observed), max(drawn * decoded, _judging(env))
    yield Need("rollout", f"images in progress, {rows:,}", rows * state, "--trajectories")
    yield Need("rollout", f"a step of {at_once:,} at once, or observing", stepping, "--micro-batch")
    yield Need("reward", f"images drawn, {rows:,}", images * (1 + (drawn < rows)), "--trajectories")
    yield Need("reward", f"decoding {drawn:,} at once, or judging", made, "--trajectories")


def _gradient(env: DecodeVectorEnv, config: AdaNATConfig, policy: Any) -> Iterator[Need]:
    transitions, seen = env.num_envs * env.steps, _row_bytes(env)
    minibatch = min(config.minibatch or transitions, transitions)
    space: Any = env.single_observation_space
    chunk = min(minibatch, network.rows_at_once(space["features"].shape, env.device))
    activations = _learn(env, policy, chunk)
    if "tokens" in seen:  # whose features are computed again
        again = min(minibatch, decoding_rows(env.generator, env.device))
        activations = max(activations, again * _grown(_predict, env))
    yield _drawn("gradient", env)
    yield Need("gradient", f"a minibatch of {minibatch:,}", minibatch * sum(seen.values()), "--minibatch")
    yield Need("gradient", f"activations of {chunk:,} at once", activations, "--minibatch")


def _measurement(env: DecodeVectorEnv, config: AdaNATConfig, held: int, decoded: int) -> Iterator[Need]:
    batch, judged = (min(most, config.evaluation_images) for most in (BATCH, CHUNK))
    drawn = max(batch * held, min(batch, image_rows(env.tokenizer.image_shape)) * decoded)
    images = 2 * judged * _image_bytes(env)  # as they come, and joined
    yield _drawn("measurement", env)
    yield Need("measurement", f"drawing {batch:,} at once", drawn, "--evaluation-images")
    yield Need("measurement", f"judging {judged:,} at once", images, "--evaluation-images")


def _drawn(phase: str, env: DecodeVectorEnv) -> Need:
    """Return what the images of a rollout take, which an environment has until the next."""
    return Need(phase, f"images drawn, {env.num_envs:,}", env.num_envs * _image_bytes(env), "--trajectories")


def refuse_too_large(config: TrainingConfig, ranks: int = 1) -> None:
    """Print the plan of a training on a GPU, of one of some ranks; ValueError if it can't fit. Nothing is
    said of a CPU."""
    if not config.env.device.startswith("cuda"):
        return
    if config.env.schedule == SEARCHED:
        config = config.but(schedule="reference")  # any: the searched one is not there yet
    env = config.env.build()
    plan = memory_plan(env.like(num_envs=Ranks(0, ranks).share(env.num_envs, env.group)), config.adanat)
    print(plan.table())
    plan.refuse_more_than(free_bytes(env.device), str(env.device))


def free_bytes(device: torch.device) -> int:
    """Return what a GPU has free, and torch has reserved there without use."""
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserved


def _row_bytes(env: DecodeVectorEnv) -> dict[str, int]:
    """Return the bytes of a row's observation, by key."""
    space: Any = env.single_observation_space
    return {key: box.dtype.itemsize * math.prod(box.shape) for key, box in space.items()}


def _image_bytes(env: DecodeVectorEnv) -> int:
    return 4 * math.prod(env.tokenizer.image_shape)


def _decoding(env: DecodeVectorEnv) -> tuple[int, int]:
    """Return the bytes of a row in progress, and those that a guided step takes of it beside."""
    measured = {}
    for rows in (1, 2):
        with torch.no_grad(), LiveBytes() as memory:
            noise = HashNoise.from_seed(0, rows, env.device)
            parts = Parts(env.generator, _first(env, rows), noise, env.rules, max(3, env.steps), size=rows)
            for _ in range(2):  # of the second both streams are of all rows
                before, memory.peak = memory.bytes, memory.bytes
                parts.advance(DecodeParams.from_table(torch.tensor([[0.5, 1.0, 1.0, 1.0]] * rows)))
            measured[rows] = memory.bytes, memory.peak - before
    return measured[2][0] - measured[1][0], measured[2][1] - measured[1][1]


def _grown(work: Callable[[DecodeVectorEnv, int], object], env: DecodeVectorEnv) -> int:
    """Return by how much what work holds at its peak grows from one row to two."""
    return max(0, _peak(work, env, 2) - _peak(work, env, 1))


def _peak(work: Callable[[DecodeVectorEnv, int], object], env: DecodeVectorEnv, rows: int) -> int:
    with torch.no_grad(), LiveBytes() as memory:
        work(env, rows)
    return memory.peak


def _decode(env: DecodeVectorEnv, rows: int) -> Tensor:
    return env.tokenizer.decode(_ids(env, rows))


def _predict(env: DecodeVectorEnv, rows: int) -> object:
    return env.generator(_ids(env, rows), _first(env, rows))


def _judge(env: DecodeVectorEnv, rows: int) -> Tensor:
    return env.reward(torch.zeros(rows, *env.tokenizer.image_shape, device=env.device), _first(env, rows))


def _judging(env: DecodeVectorEnv) -> int:
    """Return what the reward takes of all images, or of the most that go through an extractor at once."""
    half, whole = (_peak(_judge, env, rows) for rows in (FEW // 2, FEW))
    return whole + max(0, min(CHUNK, env.num_envs) - FEW) * (whole - half) // (FEW // 2)


def _learn(env: DecodeVectorEnv, policy: Any, rows: int) -> int:
    space: Any = env.single_observation_space
    observation = {
        key: torch.zeros(rows, *box.shape, dtype=getattr(torch, box.dtype.name), device=env.device)
        for key, box in space.items()
    }
    actions = torch.zeros(rows, *env.action_map.action_space.shape, device=env.device)
    with LiveBytes() as memory:
        values, log_probs, _ = policy.evaluate_actions(observation, actions)
        (values.sum() + log_probs.sum()).backward()
    return memory.peak


def _ids(env: DecodeVectorEnv, rows: int) -> Tensor:
    return torch.zeros(rows, env.generator.num_tokens, dtype=torch.long, device=env.device)


def _first(env: DecodeVectorEnv, rows: int) -> Condition:
    """Return the first condition, for each row."""
    return env.pool[torch.zeros(rows, dtype=torch.long)]


def _weights(env: DecodeVectorEnv) -> int:
    """Return the bytes of all networks, each counted once."""
    owners = [env.generator, env.tokenizer, *parts_of(env.reward)]
    modules = [module for owner in owners for module in _modules(owner)]
    weights = {weight.data_ptr(): weight.nbytes for module in modules for weight in _tensors(module)}
    return sum(weights.values())


def _modules(owner: Any) -> Iterator[nn.Module]:
    if isinstance(owner, nn.Module):
        yield owner
    else:
        yield from (value for value in vars(owner).values() if isinstance(value, nn.Module))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
