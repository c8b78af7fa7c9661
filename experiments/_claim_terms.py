"""The terms of a claim: the commands that measure it, and what has to come out for it to hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a row runs, once for each seed, in the folder NAME-SEED.

    Attributes:
        name: the same line has the same name in all rows; where several rows are run together it is run once.
        line: a script and its flags, with {seed}, and {runs} for the folder that all these folders lie in;
            with {seeds}, of a script that takes all of them, it is run once.
        toy: flags beside them that end it in seconds.
    """

    name: str
    line: str
    toy: str

    @property
    def once(self) -> bool:
        """Whether one run is of all seeds."""
        return "{seeds}" in self.line


Arm = str | tuple[str, str]
"""A command and a policy or method in its results, "COMMAND: POLICY"; or two, the first minus the second."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What is said of two arms: that ours is better than theirs.

    Attributes:
        ours, theirs: what is compared.
        metric: a column of the raw table, of which the house knows which of two is better.
        allowed: share of theirs by which ours may be worse all the same, as of what is said to cost nothing;
            below zero, by which it has to be better at least.
    """

    ours: Arm
    theirs: Arm
    metric: str = "distance"
    allowed: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """A claim and how it is measured.

    Attributes:
        name: by which it is run.
        paper, claim, reported: who says what, and the paper's own figures.
        task, steps: on which it is measured, and T.
        budget: what each arm may spend, written before the row is run.
        chooses: which images choose what is kept, and which judge it.
        commands, statements: see there.
        seeds: of searches or trainings; three at least.
        shows: further figures: the name that they get, and where they lie, with * for what varies.
        attempts: how often it was tried with other settings, where it did not hold.
    """

    name: str
    paper: str
    claim: str
    reported: str
    task: str
    steps: str
    budget: str
    chooses: str
    commands: tuple[Command, ...]
    statements: tuple[Statement, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    shows: tuple[tuple[str, str], ...] = ()
    attempts: int = 1

    @property
    def where(self) -> str:
        """On what it is measured, with T where images are drawn."""
        return self.task if self.steps == "-" else f"{self.task}, T = {self.steps}"
