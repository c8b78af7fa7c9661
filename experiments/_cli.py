"""The command line that all scripts share: flags from a config dataclass, and errors of one line."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import tyro

from generators.checks import all_finite, at_least, finite
from natgym.runs import Run
from natgym.settings import groups

Config = TypeVar("Config")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a script with trials runs, not what it does; a resumed run takes these from the command line."""

    local: bool = False
    """Run everything in this process, without Ray; the results are the same."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Batches drawn at once in this process; results don't depend on it."""
    cpus_per_trial: int = 1
    """CPUs that Ray reserves for each trial; a training uses one, a search draws as many batches at once."""
    gpus_per_trial: float = 0.0
    """GPUs that Ray reserves for each trial."""
    address: str | None = None
    """Address of a running Ray cluster; by default one is started on this machine."""
    output: Path | None = None
    """Run folder, by default one in runs/, named after the script and the time."""
    resume: Path | None = None
    """Run folder to go on with; its own settings are used."""

    def __post_init__(self) -> None:
        at_least(1, self, "threads", "cpus_per_trial")
        finite(self, "gpus_per_trial")


LONGEST = 500  # characters of an error
Log = Literal["tensorboard", "wandb"]


def refuse_missing(log: Collection[str]) -> None:
    """Raise ValueError if a program to log for is not installed."""
    for name in log:
        if getattr(find_spec(name), "origin", None) is None:
            raise ValueError(f"log {name}: {name} is not installed; pip install natgym[{name}]")


PLACES = tuple(place.name for place in dataclasses.fields(Places))

program = ""  # by which the script was called, if not by its file


def main(
    config_class: type[Config],
    work: Callable[[Config], object],
    defaults: Callable[[list[str]], Config] | None = None,
) -> None:
    """Parse the flags of `config_class`, do the work, and turn a user's error into one line and exit code 2
    or 1.

    NATGYM_TRACEBACK=1 shows where an error came from.

    Args:
        defaults: (arguments) -> the config that flags change, where some defaults follow from other flags.
    """
    script = program or Path(sys.argv[0]).name
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of ASCII gets ? for what it can't show
    sys.argv[1:] = written_out(renamed(sys.argv[1:]), config_class)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        work(parse(config_class, script, defaults))
    except (ValueError, RuntimeError, OSError, KeyboardInterrupt) as error:
        if _interrupts(error):
            how, code = ("terminated", 143) if _terminated else ("interrupted", 130)
            resumes = hasattr(config_class, "resume")
            onward = "--resume FOLDER goes on, if it kept anything" if resumes else "it has to begin anew"
            print(f"\n{script}: {how}; {onward}", file=sys.stderr)
            sys.exit(code)
        if isinstance(error, BrokenPipeError) and _unread():  # they have read enough, as `| head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes at its end
            sys.exit(1)
        if os.environ.get("NATGYM_TRACEBACK"):
            raise
        sys.exit(f"{script}: error: {_one_line(str(error))}{_less(error, config_class)}")


_terminated: list[int] = []
LESS = ("micro-batch", "minibatch", "batch", "batch-size", "recompute", "trajectories")  # memory


def _terminate(number: int, frame: Any) -> None:
    """End as after Ctrl-C on SIGTERM, with which clusters end a job: what is to be tidied up is."""
    _terminated.append(number)
    raise KeyboardInterrupt


def _interrupts(error: BaseException | None) -> bool:
    """Whether an error is an interrupt or came of one, as that of a file which torch was writing."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _interrupts(error.__context__))


def _less(error: BaseException, config_class: type) -> str:
    """Return which flags take less memory, if a GPU had not enough of it; its error is torch's."""
    flags = flags_of(config_class) if type(error).__name__ == "OutOfMemoryError" else []
    able = [f"--{name}" for name in LESS if name in flags]
    return f" Less at once takes less: {', '.join(able)}" if able else ""


def _unread() -> bool:
    """Whether nobody reads the output any more."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def parse(
    config_class: type[Config], script: str, defaults: Callable[[list[str]], Config] | None = None
) -> Config:
    """Return the config of the command line; a mistake in it is one line on stderr and exit code 2."""
    complaint = io.StringIO()
    options: dict = dict(prog=script, description=inspect.getdoc(config_class))
    try:
        if defaults is not None:
            options["default"] = defaults(sys.argv[1:])
        with contextlib.redirect_stderr(complaint):
            config = tyro.cli(config_class, **options)
        all_finite(config)
        return config
    except SystemExit as stop:
        if stop.code:
            print(f"{script}: error: {_said_in(complaint.getvalue())}; see {script} --help", file=sys.stderr)
        raise
    except ValueError as error:  # a config's own check
        print(f"{script}: error: {_one_line(str(error))}; see {script} --help", file=sys.stderr)
        raise SystemExit(2) from None


# Flags of before, and what is said today in place of the flag and its value.
FORMER_FLAGS = {
    "--min-reveal": "--rules=min_reveal={}",
    "--part": "--split={}",
    "--table.part": "--table.split={}",
}


def renamed(arguments: list[str]) -> list[str]:
    """Return a command line with today's flags in place of former ones, each with a note on stderr."""
    words = []
    rest = list(arguments)
    while rest:
        flag, joined, value = rest.pop(0).partition("=")
        if flag not in FORMER_FLAGS or not (joined or rest):
            words.append(flag + joined + value)
            continue
        words.append(FORMER_FLAGS[flag].format(value if joined else rest.pop(0)))
        print(f"{flag} is now {words[-1]}", file=sys.stderr)
    return words


def written_out(arguments: list[str], config_class: type) -> list[str]:
    """Return a command line whose flags are whole where it has their last words alone.

    `--adversarial.channels 8` stands for `--rewards.adversarial.channels 8`, as long as no other flag ends
    so; what several end with is left for the parser to refuse.
    """
    known = flags_of(config_class)
    whole = []
    for argument in arguments:
        flag, joined, value = argument.partition("=")
        words = flag.removeprefix("--").replace("_", "-")
        if flag.startswith("--") and words not in known:
            meant = [name for name in known if name.endswith(f".{words}")]
            flag = f"--{meant[0]}" if len(meant) == 1 else flag
        whole.append(flag + joined + value)
    return whole


def flags_of(config_class: type) -> list[str]:
    """Return the names of the flags of a config class, without their dashes, as the parser knows them."""
    inner = groups(config_class)
    flags = []
    hints = get_type_hints(config_class, include_extras=True)
    for field_ in dataclasses.fields(config_class):
        name = field_.name.replace("_", "-")
        if field_.name not in inner:
            flags.append(name)
            continue
        names = [getattr(extra, "name", None) for extra in getattr(hints[field_.name], "__metadata__", ())]
        prefix = "" if "" in names else f"{name}."
        flags += [prefix + below for below in flags_of(inner[field_.name])]
    return flags


def given_flags(arguments: list[str]) -> dict[str, str]:
    """Return the flags of a command line and their first values, for defaults that follow from them."""
    spaced = dict(zip(arguments, arguments[1:], strict=False))
    return spaced | dict(
        argument.split("=", 1) for argument in arguments if argument.startswith("--") and "=" in argument
    )


def open_run(
    script: str, args: Any, places: Collection[str], load: Callable[[Any], Loaded]
) -> tuple[Any, Run, Loaded]:
    """Open a run folder: a new one, or the one to resume, whose settings replace the command line's.

    Args:
        args: with fields `output` and `resume`.
        places: fields that say where to run, not what; a resumed run takes them from the command line.
        load: makes what the run needs of its settings; what it raises is said before a folder is made.

    Returns:
        The settings, the run, and what was loaded.
    """
    if args.resume is None:
        loaded = load(args)
        return args, Run.create(script, args.output, args), loaded
    refuse_settings(args.resume, places)
    run = Run.resume(args.resume)
    args = dataclasses.replace(run.config(type(args)), **{name: getattr(args, name) for name in places})
    return args, run, load(args)


def refuse_settings(resume: Path, places: Collection[str]) -> None:
    """Raise ValueError if the command line sets more than where to run: a resumed run has its own settings.

    Args:
        resume: the run folder.
        places: fields that may be given.
    """
    flags = [word.split("=")[0] for word in sys.argv[1:] if word.startswith("--")]
    names = {flag: flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in flags}
    if foreign := [flag for flag, name in names.items() if name not in places]:
        raise ValueError(f"--resume takes its settings from {resume}; drop {', '.join(foreign)}")


def _one_line(text: str) -> str:
    """Return a text in one line that can be read, without the middle of what is very long."""
    words = " ".join(text.split())
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 100]} ... {words[-100:]}"


def _said_in(box: str) -> str:
    """Return the message of tyro's error box, drawn in ASCII on some terminals, and what it suggests."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    lines = lines or [line.strip() for line in box.splitlines() if line.strip()][2:]  # below title and rule
    rule = next((at for at, line in enumerate(lines) if line and not line.strip("─-")), len(lines))
    message = " ".join(lines[:rule]) or " ".join(box.split())
    meant = [line.split()[0] for line in lines[rule:] if line.startswith("--")]
    message = re.sub(r"^Error parsing \w+: ", "", message)  # a config's own check speaks for itself
    if meant and "nrecognized" in message:
        message = f"{message} (perhaps {' or '.join(meant[:3])})"
    return _one_line(message)
