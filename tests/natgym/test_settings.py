"""Settings by path or last words, changed and read from files of before."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from natgym.settings import changed, grouped, place, places, setting


@dataclass(frozen=True)
class Net:
    width: int = 4
    rates: tuple[float, ...] = (0.1, 0.2)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width {self.width}: it must be at least 1")


@dataclass(frozen=True)
class Reward:
    net: Net = field(default_factory=lambda: Net(width=9))
    kind: str = "plain"


@dataclass(frozen=True)
class Env:
    steps: int = 3
    reward: Reward = field(default_factory=Reward)


@dataclass(frozen=True)
class Whole:
    env: Env = field(default_factory=Env)
    net: Net = field(default_factory=Net)
    seed: int = 0


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("seed", ("seed",)),
        ("env.steps", ("env", "steps")),
        ("steps", ("env", "steps")),
        ("kind", ("env", "reward", "kind")),
        ("reward.kind", ("env", "reward", "kind")),
        ("net", ("net",)),
        ("width", ("net", "width")),  # one below a group comes before those further down
        ("reward.net.width", ("env", "reward", "net", "width")),
    ],
)
def test_a_setting_is_found_by_its_path_or_last_words(name: str, path: tuple[str, ...]) -> None:
    assert place(Whole, name) == path and path in places(Whole)


def test_what_is_unknown_or_several_is_told() -> None:
    with pytest.raises(ValueError, match="Whole has no setting 'color'; it has env, net"):
        place(Whole, "color")

    @dataclass(frozen=True)
    class Twins:
        one: Reward = field(default_factory=Reward)
        other: Reward = field(default_factory=Reward)

    with pytest.raises(ValueError, match="'kind' of Twins may be one.kind, other.kind; say which"):
        place(Twins, "kind")


def test_changes_at_any_depth_leave_the_rest() -> None:
    base = Whole()
    found = changed(base, {"steps": 5, "reward.net.width": 7, "net": {"rates": [1, 2]}, "kind": "odd"})
    assert found.env == Env(5, Reward(Net(7), "odd")) and found.net == Net(4, (1, 2)) and found.seed == 0
    assert base == Whole() and changed(base, {}) == base
    assert changed(base, {"env": {"reward": {"net": {"width": 2}}}}).env.reward.net == Net(2)
    assert changed(base, {"net": Net(6)}).net == Net(6)
    assert setting(found, "reward.net.width") == 7
    with pytest.raises(ValueError, match="width 0"):
        changed(base, {"width": 0})


def test_settings_of_a_flat_file_go_into_their_groups() -> None:
    flat: dict[str, Any] = {"steps": 4, "kind": "odd", "seed": 1, "nonsense": 2}
    assert grouped(Whole, flat) == {
        "env": {"steps": 4, "reward": {"kind": "odd"}},
        "seed": 1,
        "nonsense": 2,
    }


def test_nothing_is_lost_where_changes_meet() -> None:
    """Mappings and paths into one group join; one setting said twice is refused, whatever the order."""
    given = {"env": {"reward": {"kind": "odd"}}, "env.reward.net.width": 7, "net.width": 5}
    found = changed(Whole(), given)
    assert found.env.reward == Reward(Net(7), "odd") and found.net.width == 5
    assert given["env"] == {"reward": {"kind": "odd"}}, "the caller's own is left alone"
    for twice in ({"env.steps": 3, "steps": 5}, {"env": {"steps": 3}, "steps": 3}):
        with pytest.raises(ValueError, match="setting env.steps is given twice"):
            changed(Whole(), twice)
    with pytest.raises(ValueError, match="net.width is changed with all of its group at once"):
        changed(Whole(), {"net": Net(3), "net.width": 2})
    with pytest.raises(ValueError, match="no setting 'widht'; perhaps .*width"):
        changed(Whole(), {"widht": 2})
