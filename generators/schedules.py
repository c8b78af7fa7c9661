"""Decoding parameters and schedules: a (T, K) table of them, hand-made families, JSON and YAML in and out.

The columns are those of `generators.parameters`, four by default, in the order of the official AdaNAT
policies; a file or a table with fewer columns has neutral values in the others. Guidance is
l_c + w (l_c - l_u): w = 0 is none; the scale that other papers call s is w + 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generators import families, parameters
from generators.files import write_atomic

TABLE = parameters.sealed()
PARAMETERS = tuple(TABLE)
# AutoNAT's names for them in its strategy files. Its guidance scale is ours.
STRATEGY = {p.strategy_key: p for p in TABLE.values() if p.strategy_key}
CONVENTION = "logits = l_c + w (l_c - l_u); w = 0 is no guidance"


class DecodeParams(tuple[Tensor, ...]):
    """The decisions of one step, each (B,) on the host, where mask counts and skipped passes follow.

    A tuple in the order of PARAMETERS, whose values also have their names as attributes, those of further
    registered parameters too. Columns that are not given are neutral.

    Attributes:
        mask_ratio: m in [0, 1], share of all tokens that are not given, masked after the step.
        remask_temperature: tau_2 >= 0, scale of the Gumbel noise on the confidences.
        sampling_temperature: tau_1 > 0, temperature of the categorical draw.
        guidance_scale: w >= 0.
    """

    mask_ratio: Tensor
    remask_temperature: Tensor
    sampling_temperature: Tensor
    guidance_scale: Tensor

    def __new__(cls, *columns: Tensor) -> DecodeParams:
        if not len(parameters.STANDARD) <= len(columns) <= len(PARAMETERS):
            raise TypeError(f"{len(columns)} columns for the parameters {', '.join(PARAMETERS)}")
        missing = list(TABLE.values())[len(columns) :]
        return super().__new__(cls, (*columns, *(torch.full_like(columns[0], p.neutral) for p in missing)))

    def _replace(self, **columns: Tensor) -> DecodeParams:
        """Return these decisions with others in some columns, as of a NamedTuple."""
        if unknown := set(columns) - set(TABLE):
            raise ValueError(f"{', '.join(sorted(unknown))}: not one of {', '.join(PARAMETERS)}")
        return DecodeParams(
            *(columns.get(name, present) for name, present in zip(PARAMETERS, self, strict=True))
        )

    def __getnewargs__(self) -> tuple[Tensor, ...]:
        return tuple(self)

    def __getattr__(self, name: str) -> Tensor:
        if name not in TABLE:
            raise AttributeError(f"{name!r} is not one of {', '.join(PARAMETERS)}")
        return self[PARAMETERS.index(name)]

    @classmethod
    def from_table(cls, table_BK: Tensor) -> DecodeParams:
        """Split a (B, K) tensor; raise ValueError for a value outside the ranges above.

        Columns that it lacks are neutral.
        """
        fits = len(parameters.STANDARD) <= table_BK.shape[-1] <= len(PARAMETERS)
        if not fits or not bool(torch.isfinite(table_BK).all()):
            raise ValueError(
                f"decoding parameters must be finite and (..., {len(PARAMETERS)}), got {_summary(table_BK)}"
            )
        params = cls(*table_BK.cpu().unbind(-1))
        for parameter, values in zip(TABLE.values(), params, strict=True):
            if not parameter.holds(values):
                span = f"[{values.min():.4g}, {values.max():.4g}]"
                raise ValueError(f"{parameter.name} spans {span}; it must be {parameter.range}")
        return params

    @property
    def table(self) -> Tensor:
        """All of them as one (B, K) tensor."""
        return torch.stack(list(self), dim=-1)


@dataclass(frozen=True, eq=False)
class Schedule:
    """One row of decoding parameters per step, the same for every sample.

    Attributes:
        table_T4: (T, K) float64, K = 4 unless more are registered; the mask ratio of the last step is
            irrelevant, since it reveals all.
        name: for tables and figures.
    """

    table_T4: Tensor
    name: str = "schedule"

    def __post_init__(self) -> None:
        if self.table_T4.ndim != 2 or self.table_T4.shape[0] < 1:
            expected = f"(T, {len(PARAMETERS)}) table with T >= 1"
            raise ValueError(f"a schedule is a {expected}, got {tuple(self.table_T4.shape)}")
        DecodeParams.from_table(self.table_T4)
        object.__setattr__(self, "table_T4", parameters.completed(self.table_T4))

    @property
    def steps(self) -> int:
        return self.table_T4.shape[0]

    def params(self, step: int, num_rows: int) -> DecodeParams:
        """Return the decoding parameters of `step` for a batch."""
        return DecodeParams(*self.table_T4[step].expand(num_rows, -1).unbind(-1))

    def save(self, path: Path | str) -> None:
        """Write JSON (name, parameter names, guidance convention, table), or AutoNAT's strategy to .yaml.

        A strategy has no name, and neither mask ratio nor re-masking temperature of the last step, where
        nothing is re-masked.
        """
        write_atomic(path, self._strategy() if _is_yaml(path) else self._json())

    @classmethod
    def load(cls, path: Path | str) -> Schedule:
        """Read what `save` wrote, or AutoNAT's strategy from .yaml; ValueError if it is something else."""
        try:
            text = Path(path).read_text()
            return cls._from_strategy(text, Path(path).stem) if _is_yaml(path) else cls._from_json(text)
        except FileNotFoundError:
            raise ValueError(f"there is no schedule file {path}") from None
        except (KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError) as error:
            kind = f"an AutoNAT strategy: {error}; expected {', '.join(STRATEGY)}"
            if not _is_yaml(path):
                kind = f"a natgym schedule: {error}; expected columns {PARAMETERS}"
            raise ValueError(f"{path} is not {kind}") from None

    def _json(self) -> str:
        text = {
            "name": self.name,
            "parameters": PARAMETERS,
            "guidance": CONVENTION,
            "table": self.table_T4.tolist(),
        }
        return json.dumps(text, indent=2) + "\n"

    @classmethod
    def _from_json(cls, text: str) -> Schedule:
        content = json.loads(text)
        if content["guidance"] != CONVENTION:
            raise ValueError(f"its columns are {content['parameters']} with guidance {content['guidance']!r}")
        table = torch.tensor(content["table"], dtype=torch.float64)
        return cls(parameters.named_columns(table, content["parameters"]), content["name"])

    def _strategy(self) -> str:
        import yaml

        at = dict(zip(PARAMETERS, self.table_T4.T.tolist(), strict=True))
        columns = {key: at[p.name][: p.decides(self.steps)] for key, p in STRATEGY.items()}
        return yaml.safe_dump(columns, default_flow_style=None, sort_keys=False, width=math.inf)

    @classmethod
    def _from_strategy(cls, text: str, name: str) -> Schedule:
        import yaml

        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from None
        if not isinstance(content, dict) or not set(_standard_keys()) <= set(content) <= set(STRATEGY):
            raise ValueError("it does not hold exactly these")
        if strangers := [key for key, column in content.items() if not isinstance(column, list)]:
            raise ValueError(f"{', '.join(strangers)} holds no list")
        lists = {STRATEGY[key]: [float(x) for x in content[key]] for key in STRATEGY if key in content}
        steps = {len(column) + p.idle_at_end for p, column in lists.items()}
        if len(steps) > 1:
            lengths = ", ".join(f"{len(column)} {p.strategy_key}" for p, column in lists.items())
            terms = ", ".join("T - 1" if p.idle_at_end else "T" for p in list(lists)[:-1])
            raise ValueError(f"{lengths} don't fit; T steps have {terms} and T")
        # What the last step ignores has no number there in the file; 0 fills its place.
        columns = {p.name: [*column, 0.0] if p.idle_at_end else column for p, column in lists.items()}
        tensors = {key: torch.tensor(column, dtype=torch.float64) for key, column in columns.items()}
        return cls(parameters.stacked(tensors), name)


def _standard_keys() -> list[str]:
    """AutoNAT's own, which every strategy file has."""
    return [key for key, p in STRATEGY.items() if p.name in parameters.STANDARD]


def reference(
    steps: int, *, remask: float = 1.0, sampling: float = 1.0, guidance: float = 1.0, name: str = "reference"
) -> Schedule:
    """AdaNAT's hand-made schedule (arXiv 2409.00342, code), temperatures and guidance scaled as asked.

    With r = (k + 1 - 0.001) / T: m = cos(pi r / 2), tau_2 = 1 - r, tau_1 = 1, w = (k + 0.001) / T.
    """
    table_T4 = families.table(
        steps,
        remask=(remask, 0.0),
        sampling=(sampling, sampling),
        guidance=partial(families.ramp, w=guidance),
    )
    return Schedule(table_T4, name)


def maskgit(steps: int) -> Schedule:
    """MaskGIT's choice temperature, tau_2 = 4.5 (1 - r) (Chang et al. 2022, code); else the reference."""
    return family("maskgit", steps)


def random_order(steps: int) -> Schedule:
    """Near-random order: Gumbel noise drowns the confidences, tau_2 = 15 (1 - r); no guidance."""
    return family("random-order", steps)


def family(spec: str, steps: int) -> Schedule:
    """Return a hand-made schedule by name, such as "maskgit" or "beta-cdf:a=2,b=3,guidance=constant,w=.5".

    `generators.families` has the curves, their parameters and their sources.

    Raises:
        ValueError: a name, a key or a value is wrong, or a parameter leaves its range.
    """
    return of_curves(families.parse(spec), steps, spec)


def of_curves(curves: Mapping[str, Any], steps: int, spec: str) -> Schedule:
    """Return a schedule of the arguments of `families.table`; errors name the spec that they come from."""
    try:
        return Schedule(families.table(steps, **curves), spec)
    except ValueError as error:
        raise ValueError(f"schedule {spec!r}: {error}") from None


FAMILIES: dict[str, Callable[[int], Schedule]] = {
    name: partial(family, name) for name in (*families.PRESETS, *families.RATIOS)
}


def as_schedule(schedule: str | Path | Schedule, steps: int) -> Schedule:
    """Return a schedule of `steps` steps from a `family`, a file or a schedule; else ValueError."""
    if isinstance(schedule, str) and schedule.partition(":")[0] in FAMILIES:
        return family(schedule, steps)
    if not isinstance(schedule, Schedule):
        if not Path(schedule).is_file():
            raise ValueError(f"schedule {str(schedule)!r} is neither a file nor one of {', '.join(FAMILIES)}")
        schedule = Schedule.load(schedule)
    if schedule.steps != steps:
        has = schedule.steps
        raise ValueError(
            f"schedule {schedule.name!r} has {has} steps, not the {steps} asked for; ask for {has}"
        )
    return schedule


def _is_yaml(path: Path | str) -> bool:
    return Path(path).suffix.lower() in (".yaml", ".yml")


def _summary(table: Tensor) -> str:
    return f"shape {tuple(table.shape)} with {int((~torch.isfinite(table)).sum())} values that are not finite"
