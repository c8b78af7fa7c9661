"""The decoding parameters, each described once: what schedules, spaces, searches, figures and files read.

A further one is registered before anything that lays out tables is imported, and has its neutral value
wherever nobody says otherwise:

    from generators.parameters import DecodingParameter, register
    register(DecodingParameter(name="top_p", symbol="p", title="nucleus", high=1.0, neutral=1.0, bound=4.0))

Shapes: B rows, T steps, K registered parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # names and ranges are read without torch, so that flags are quick
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Activation:
    """A monotone map from the reals to a parameter's range, and its inverse."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]

    def __reduce__(self) -> str | tuple[type, tuple[Any, Any]]:
        """Pickle a shipped one by its name, as which it comes back; its functions have none."""
        shipped = {id(SIGMOID): "SIGMOID", id(EXPONENTIAL): "EXPONENTIAL", id(SOFTPLUS): "SOFTPLUS"}
        return shipped.get(id(self), (Activation, (self.forward, self.inverse)))


def _softplus(x: Tensor) -> Tensor:
    from torch.nn.functional import softplus  # which tensors lack as a method

    return softplus(x)


SIGMOID = Activation(lambda x: x.sigmoid(), lambda share: share.logit())
EXPONENTIAL = Activation(lambda x: x.exp(), lambda value: value.log())
# log(exp(w) - 1), in the form that does not overflow.
SOFTPLUS = Activation(_softplus, lambda w: w + (-(-w).expm1()).log())


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodingParameter:
    """What there is to know of one decoding parameter.

    Attributes:
        name: of the column in tables, files and frames.
        symbol, title: for formulas (TeX, without dollars) and figures.
        high: the range is [0, high]; its end may be infinite.
        positive: 0 is not in the range.
        neutral: the value of a table that does not have this column; within the range.
        activation: of the default action map; None takes the paper's.
        unit: of the default action map: what one unit of action is, before the activation.
        bound: an action of the default map lies in [-bound, bound].
        formula: the default map in words, a being the action; for the documentation.
        strategy_key: in AutoNAT's strategy files; None is not in them.
        idle_at_end: the last step, which reveals everything, ignores it.
    """

    name: str
    symbol: str
    title: str
    high: float = math.inf
    positive: bool = False
    neutral: float
    activation: Activation | None = None
    unit: float = 1.0
    bound: float
    formula: str = ""
    strategy_key: str | None = None
    idle_at_end: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"parameter name {self.name!r} is no identifier, which a column needs")
        if not self._spans(self.neutral, self.neutral):
            raise ValueError(f"{self.name}'s neutral value {self.neutral} must be {self.range}")
        if not (0 < self.bound < math.inf and 0 < self.unit < math.inf):
            raise ValueError(f"{self.name} has bound {self.bound}, unit {self.unit}: both must be positive")

    @property
    def range(self) -> str:
        """The range in words, such as "in [0, 1]" or "> 0"."""
        if self.high < math.inf:
            return f"in {'(' if self.positive else '['}0, {self.high:g}]"
        return "> 0" if self.positive else ">= 0"

    @property
    def paper_activation(self) -> Activation:
        """The official one: sigmoid for a share, softplus for what has no upper end."""
        return SIGMOID if self.high == 1 else SOFTPLUS

    @property
    def label(self) -> str:
        """Title and symbol, for the axes of a figure."""
        word, _, note = self.title.partition(" (")
        return f"{word} ${self.symbol}$" + (f" ({note}" if note else "")

    def holds(self, values: Tensor) -> bool:
        """Return whether all values lie in the range."""
        return self._spans(values.min(), values.max())

    def _spans(self, least: Any, most: Any) -> bool:
        return bool((least > 0 if self.positive else least >= 0) and most <= self.high)

    def decides(self, steps: int) -> int:
        """Return in how many of `steps` steps it has an effect."""
        return steps - self.idle_at_end


_table: dict[str, DecodingParameter] = {}
_sealed = False


def register(parameter: DecodingParameter) -> None:
    """Add a decoding parameter behind the others.

    Raises:
        ValueError: there is one of this name, or the table is in use already.
    """
    if _sealed:
        raise ValueError(f"register {parameter.name!r} before anything else of natgym is imported")
    if parameter.name in _table:
        raise ValueError(f"there is a decoding parameter {parameter.name!r} already")
    _table[parameter.name] = parameter


def sealed() -> dict[str, DecodingParameter]:
    """Return name -> parameter in the order of the columns; from now on the table stays as it is."""
    global _sealed
    _sealed = True
    return dict(_table)


# In the order of the official AdaNAT policies. The bounds hold every shipped schedule around the reference
# and three standard deviations of 0.6 around each; further out, uniform actions draw no images.
register(
    DecodingParameter(
        name="mask_ratio",
        symbol="m",
        title="mask ratio",
        high=1.0,
        neutral=0.0,
        activation=SIGMOID,
        unit=0.5,
        bound=3.0,
        formula="sigmoid(logit(m) + a / 2)",
        strategy_key="manual_ratios",
        idle_at_end=True,
    )
)
register(
    DecodingParameter(
        name="remask_temperature",
        symbol=r"\tau_2",
        title="re-mask temperature",
        neutral=0.0,
        activation=EXPONENTIAL,
        bound=5.0,
        formula="tau_2 exp(a)",
        strategy_key="manual_temp",
        idle_at_end=True,
    )
)
register(
    DecodingParameter(
        name="sampling_temperature",
        symbol=r"\tau_1",
        title="sampling temperature",
        positive=True,
        neutral=1.0,
        activation=EXPONENTIAL,
        unit=0.25,
        bound=3.5,
        formula="tau_1 exp(a / 4)",
        strategy_key="manual_samp_temp",
    )
)
register(
    DecodingParameter(
        name="guidance_scale",
        symbol="w",
        title="guidance scale (0: none)",
        neutral=0.0,
        activation=SOFTPLUS,
        bound=3.5,
        formula="softplus(softplus^-1(w) + a)",
        strategy_key="manual_cfg",
    )
)
STANDARD = tuple(_table)
"""The parameters of the papers, which old files and official policies have."""


def completed(table: Tensor) -> Tensor:
    """Return a table (..., K) from one with fewer columns: neutral values for the parameters it lacks.

    Raises:
        ValueError: it has fewer columns than the papers' parameters, or more than are registered.
    """
    import torch

    missing = list(sealed().values())[table.shape[-1] :]
    if not len(STANDARD) <= table.shape[-1] <= len(_table):
        raise ValueError(f"a table has {len(_table)} columns ({', '.join(_table)}), not {table.shape[-1]}")
    if not missing:
        return table
    added = [table.new_full((*table.shape[:-1], 1), parameter.neutral) for parameter in missing]
    return torch.cat([table, *added], dim=-1)


def stacked(columns: Mapping[str, Tensor]) -> Tensor:
    """Return a table (N, K) of columns (N,) by name: neutral values for those not given."""
    import torch

    if strangers := set(columns) - set(sealed()):
        raise ValueError(f"{', '.join(sorted(strangers))} are not among {', '.join(_table)}")
    like = next(iter(columns.values()))
    filled = (columns.get(p.name, torch.full_like(like, p.neutral)) for p in _table.values())
    return torch.stack(list(filled), dim=-1)


def named_columns(table: Tensor, names: Sequence[str]) -> Tensor:
    """Return a table (..., K) from one whose columns are `names`, in the order of the registered ones.

    Raises:
        ValueError: a name is not registered, not in order, or there twice, or not every column is named.
    """
    if list(names) != [name for name in sealed() if name in names] or table.shape[-1:] != (len(names),):
        raise ValueError(f"its columns are {list(names)}, not {list(_table)} or some of these in this order")
    return stacked(dict(zip(names, table.unbind(-1), strict=True))) if len(names) < len(_table) else table
