"""Test what the papers claim, one claim a row: its commands, its raw figures, an interval, a verdict."""

import _root  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

from _claim_rows import ROWS
from _cli import main


@dataclass(frozen=True, kw_only=True)
class Args:
    """Measure claims of the papers, each by the commands that its row names, for several seeds.

    The verdict follows from the paired 95 % interval over the seeds: a claim holds where the whole interval
    is on its side, fails where all of it is on the other, and is not shown where the interval leaves it open.
    """

    row: tuple[str, ...] = ()
    """Rows by name; what several need is run once."""
    list: bool = False
    """Say which rows there are, with their commands and what each may spend."""
    table: bool = False
    """Print the tables of the page of claims, of the raw figures in --measured."""
    quick: bool = False
    """Run the rows, by default all, at toy size and for one seed, to see that they run; no verdicts."""
    measured: Path | None = None
    """Folder of what was measured, ROW.csv and ROW.json, by default docs/claims of this clone."""
    output: Path | None = None
    """Run folder, by default runs/claims-<time>."""
    resume: Path | None = None
    """Run folder to go on with; its own settings are used."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.row if name not in ROWS]:
            raise ValueError(f"row {', '.join(unknown)}: there are {', '.join(ROWS)}")
        if not (self.row or self.list or self.table or self.quick or self.resume):
            raise ValueError("nothing is asked for; give --row NAME, --list, --table or --quick")

    @property
    def names(self) -> tuple[str, ...]:
        """The rows to run."""
        return self.row or tuple(ROWS)


def work(args: Args) -> None:
    import _claims_page  # pandas and what else takes long, only now that the flags are read

    _claims_page.work(args)


if __name__ == "__main__":
    main(Args, work)
