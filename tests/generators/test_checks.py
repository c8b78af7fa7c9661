"""Checks of settings and of what is read: each says in one line which value, or which file, is wrong."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agents.adanat.config import AdaNATConfig, EnvConfig, TrainingConfig
from agents.autonat.config import GridConfig
from generators.checkpoints import restore, save_state
from generators.checks import all_finite
from generators.config import TrainingConfig as GeneratorTraining
from generators.files import config_from_dict, read_json, reading
from natgym.evaluation.objective import Objective


@dataclass(frozen=True)
class Inner:
    rates: tuple[float, ...] = (0.5, 1.5)


@dataclass(frozen=True)
class Outer:
    count: int = 3
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Outer(inner=Inner((0.5, math.nan))), "inner.rates nan: it must be a finite number"),
        (Outer(inner=Inner((-math.inf,))), "inner.rates -inf: it must be a finite number"),
        (Outer(2**63), "count 9223372036854775808: it must be a number of 64 bits"),
    ],
)
def test_the_number_that_is_wrong_is_named_with_its_place(config: Outer, said: str) -> None:
    all_finite(Outer(2**63 - 1))
    with pytest.raises(ValueError, match=said):
        all_finite(config)


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf, -0.01])
def test_a_price_is_a_number_from_0_on(price: float) -> None:
    for make in (lambda: EnvConfig(price=price), lambda: Objective("distance", price)):
        with pytest.raises(ValueError, match=f"price {price}: it must be a number from 0 on"):
            make()
    assert EnvConfig(price=0.01).price == Objective("distance", 0.01).price == 0.01


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdaNATConfig(learning_rate=math.inf),
        lambda: AdaNATConfig(entropy_weight=math.nan),
        lambda: AdaNATConfig(value_weight=-1.0),
        lambda: TrainingConfig.of(action_std=(math.inf, 0.1)),
        lambda: TrainingConfig.of(**{"policy.width": 0}),
        lambda: TrainingConfig.of(**{"adversarial.crop": 1.5}),
        lambda: GeneratorTraining(ema=1.5),
        lambda: GeneratorTraining(warmup=-1),
        lambda: GridConfig(remask=(1.0, math.nan)),
        lambda: config_from_dict(Inner, {"rates": [math.nan]}),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("odd\n  value"), "FILE does not fit a table: odd value"),
        (KeyError("rows"), "FILE does not fit a table: KeyError 'rows'"),
        (OSError(22, "Invalid argument"), "FILE does not fit a table: OSError [Errno 22] Invalid argument"),
    ],
)
def test_whatever_is_wrong_with_a_file_names_it(error: Exception, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(ValueError) as caught, reading(path, "a table"):
        raise error
    assert str(caught.value) == said.replace("FILE", str(path))


def test_what_names_a_file_already_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), reading(tmp_path / "file"):
        (tmp_path / "file").read_text()
    with pytest.raises(ValueError, match=f"^{tmp_path}/file is odd$"), reading(tmp_path):
        raise ValueError(f"{tmp_path}/file is odd")


def test_json_and_checkpoints_of_something_else_are_told(tmp_path: Path) -> None:
    (path := tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="x.json is not JSON"):
        read_json(path)
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path) == {"a": 1}

    class Trainer:
        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.done = state["done"]

    trainer = Trainer()
    save_state(tmp_path / "checkpoint.pt", {"done": 3})
    restore(trainer, tmp_path / "checkpoint.pt")
    assert trainer.done == 3
    save_state(tmp_path / "checkpoint.pt", {"update": 3})
    with pytest.raises(ValueError, match="checkpoint.pt does not fit what is read: KeyError 'done'"):
        restore(trainer, tmp_path / "checkpoint.pt")
