"""Attacks on what natgym reads: how many there are, and what may come of each.

A case is accepted, or refused by a ValueError or OSError of one line that names what is wrong. Anything else,
a hang among it, is a fault. The short form runs by default, the long one with `-m slow`: the same code with
larger counts, which NATGYM_TRUST multiplies.
"""

import copy
import os
import pickle
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LONGEST_LINE = 600  # characters
PATIENCE = 30.0  # seconds
ODD_VALUES: list[Any] = [None, True, "zzz", "", "3", -1, 0, 1.5, 2**31, 10**18, float("nan"), float("inf")]
ODD_VALUES += [[], [1], [[1, 2]], {}, {"a": 1}, "x" * 10_000]
ODD_WORDS = ["", "nowhere", "../..", "/", "a" * 5000, "ä🙂", "1e999", "#", "=,=", "{}", "nan", "-", "1:2:3"]
ODD_WORDS += ["$(id)", "{0}", "%s", "digits#", "digits#given=", "a\tb", "\n"]


def scaled(long: int) -> int:
    """Return how many cases of the long form are asked for."""
    return max(1, round(long * float(os.environ.get("NATGYM_TRUST", 1))))


def forms(short: int, long: int) -> list[Any]:
    """Return a test's two counts of cases."""
    return [pytest.param(short, id="short"), pytest.param(scaled(long), id="long", marks=pytest.mark.slow)]


class Hang(BaseException):
    """A case takes longer than anybody waits."""


class Attack:
    """Cases of one attack: what came of them is counted, printed, and at the end nothing may be wrong.

    Args:
        refusals: errors that are right as well, as TypeError is of a program's own arguments.
    """

    def __init__(self, name: str, *refusals: type[Exception]) -> None:
        self.name, self.refusals = name, (ValueError, OSError, *refusals)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def __enter__(self) -> "Attack":
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        print(f"attack: {self.name}: {dict(self.counts)}")
        if kind is None:
            shown = "\n".join(self.wrong[:60])
            assert not self.wrong, f"{len(self.wrong)} of {self.counts.total()}:\n{shown}"

    def load(self, case: Any, load: Callable[[], Any], *names: Any) -> bool:
        """Try to load something; return whether it was accepted.

        Args:
            names: of which a refusal has to say one.
        """
        came, said = self._outcome(load)
        if came == "refused" and not any(str(name) in said for name in names):
            came, said = "nameless", f"{said!r} names none of {names}"
        self._count(came, f"{case}: {said}")
        return came == "accepted"

    def script(self, case: Any, run: Callable[[], tuple[int, str, str]]) -> bool:
        """Run a script that ends as scripts do; return whether it did its work."""
        ended: list[tuple[int, str, str]] = []
        came, said = self._outcome(lambda: ended.append(run()))
        if ended:
            code, _, error = ended[0]
            last = (error.strip().splitlines() or [""])[-1]
            came, said = ("accepted", "") if code == 0 else ("refused", last)
            if code and (code not in (1, 2) or ".py: error: " not in last or "Traceback" in error):
                came, said = "unclear", f"exit code {code}, {error[-400:]!r}"
            elif code and len(last) > LONGEST_LINE:
                came, said = "long-winded", last
        self._count(came, f"{case}: {said}")
        return came == "accepted"

    def check(self, case: Any, right: bool, said: str) -> None:
        """Count an accepted case as silent if it came to something wrong."""
        if not right:
            self._count("silent", f"{case}: {said}")

    def _outcome(self, act: Callable[[], Any]) -> tuple[str, str]:
        before = signal.signal(signal.SIGALRM, _hang)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            act()
            return "accepted", ""
        except Hang:
            return "hang", f"no answer in {PATIENCE:g} s"
        except self.refusals as error:
            said = str(error)
            return "refused" if len(said) <= LONGEST_LINE else "long-winded", said
        except Exception as error:
            return "traceback", f"{type(error).__name__}: {error}"[:300]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _count(self, came: str, said: str) -> None:
        self.counts[came] += 1
        if came not in ("accepted", "refused"):
            self.wrong.append(f"{came}: {said}")


def _hang(number: int, frame: Any) -> None:
    raise Hang


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where values stand in a JSON document, containers included."""
    yield path
    if not isinstance(content, dict | list):
        return
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield from places(value, (*path, key))


def with_odd_value(content: Any, rng: np.random.Generator) -> tuple[Any, tuple[Any, ...], Any, Any]:
    """Return a copy with one value changed, where, from what and to what."""
    content = copy.deepcopy(content)
    path = [place for place in places(content) if place][rng.integers(len(list(places(content))) - 1)]
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    before, after = inner[path[-1]], copy.deepcopy(ODD_VALUES[rng.integers(len(ODD_VALUES))])
    inner[path[-1]] = after
    return content, path, before, after


def same_type(before: Any, after: Any) -> bool:
    """Whether two JSON values could be of one setting; a null one says nothing."""
    if before is None or after is None:
        return True
    number = (int, float)
    if isinstance(before, number) and isinstance(after, number):
        return isinstance(before, bool) == isinstance(after, bool)
    return type(before) is type(after)


def cuts(data: bytes, parts: int) -> Iterator[tuple[int, bytes]]:
    """Yield (share kept in %, what is left of a file), from nothing to all but a byte."""
    for part in range(parts):
        yield round(100 * part / parts), data[: len(data) * part // parts]
    yield 99, data[:-1]


def garbled(data: bytes, rng: np.random.Generator) -> bytes:
    """Return data of which up to 8 bytes are others."""
    found = bytearray(data)
    for at in rng.integers(len(data), size=rng.integers(1, 9)):
        found[at] = rng.integers(256)
    return bytes(found)


class Payload:
    """A pickle that makes a file wherever it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


class Command(Payload):
    """The same by a shell."""

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.mark}",))


class Evaluated(Payload):
    """The same by eval."""

    def __reduce__(self) -> Any:
        return (eval, (f"open({str(self.mark)!r}, 'w')",))


PAYLOADS: tuple[type[Payload], ...] = (Payload, Command, Evaluated)


def poisoned(mark: Path, protocol: int) -> Iterator[tuple[str, bytes]]:
    """Yield pickles of the payloads, bare and inside of what is expected."""
    for payload in PAYLOADS:
        for name, content in (
            ("bare", payload(mark)),
            ("value", {"done": 0, "generator": payload(mark)}),
            ("list", [payload(mark)]),
        ):
            yield f"{payload.__name__} {name}", pickle.dumps(content, protocol)
