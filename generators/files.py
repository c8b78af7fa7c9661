"""Files as all of natgym writes and reads them, without torch: whole ones, descriptions, configs of JSON.

Every file is written to a temporary name, flushed and renamed, so that a reader never sees half a file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from generators import former
from generators.checks import all_finite
from generators.typed import typed

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

PRETRAINED = Path(__file__).parent / "pretrained"
FILES = ("config.json", "model.safetensors")  # of a saved module
FORMAT = 1  # of saved modules and checkpoints
LOCK = ".lock"  # in a run's folder: who writes there
_HELD: dict[Path, IO[str]] = {}  # by this process


def saved(folder: Path) -> bool:
    """Tell whether a folder holds a saved module."""
    return all((folder / file).is_file() for file in FILES)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary name; what is written there replaces `path` in one step.

    A crash leaves the old file or the new one, never a part.
    """
    path = Path(path)
    # Several hosts may write there, and several containers of one name with the same process ids.
    writer = f"{socket.gethostname()}-{os.getpid()}-{os.environ.get('RANK', 0)}"
    temporary = path.with_name(f".{path.name}.{writer}.part")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Replace `path` by `data` in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def reading(path: Path | str, what: str = "what is read") -> Iterator[None]:
    """Turn whatever goes wrong with a file's content, which anybody may have changed, into a ValueError of
    one short line that names the file.

    Args:
        what: it should be.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        kind = "" if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__} "
        said = textwrap.shorten(f"{kind}{error}", 400, placeholder=" ...")
        raise ValueError(said if str(path) in said else f"{path} does not fit {what}: {said}") from error


def read_json(path: Path | str) -> Any:
    """Read a JSON file; ValueError that names it if it is none."""
    try:
        return json.loads(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def cache_folder() -> Path:
    """Return where files are kept that can be made again: $NATGYM_CACHE, by default `cache`."""
    return Path(os.environ.get("NATGYM_CACHE", "cache"))


def hold(folder: Path | str) -> None:
    """Let this process alone write into a run's folder, until it ends, however it ends.

    A process that it forked has what it has. Where the file system has no locks, that is said, and nothing is
    held.

    Raises:
        ValueError: another process writes there; it is named.
    """
    folder = Path(folder).resolve()
    if fcntl is None or (folder in _HELD and _same(_HELD[folder], folder / LOCK)):
        return
    file = open(folder / LOCK, "a+")  # noqa: SIM115  (as long as the process lives)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        other = file.read() or "another process"
        file.close()
        raise ValueError(f"{folder} is being written by {other}; wait for its end, or stop it") from None
    except OSError as error:
        warnings.warn(f"{folder} can't be locked ({error}); see that one process writes there", stacklevel=2)
        file.close()
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    _HELD[folder] = file
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Take away what processes of this host left half written in a run's folder when they were killed."""
    mark = re.compile(rf"\..*\.{re.escape(socket.gethostname())}-(\d+)-\d+\.part")
    for path in folder.rglob("*.part"):
        writer = mark.fullmatch(path.name)
        if writer and not _lives(int(writer[1])):
            path.unlink(missing_ok=True)
    for path in folder.rglob(".tmp*"):  # so safetensors names what it writes
        if re.fullmatch(r"\.tmp\w{6}", path.name):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _same(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one of a name today, whose folder may have been made anew."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def place_and_options(spec: str) -> tuple[str, str]:
    """Cut a text for a folder of images, PATH or PATH#OPTIONS, in two; a folder's own name may have a #."""
    if Path(spec).is_dir() or "#" not in spec:
        return spec, ""
    place, _, options = spec.rpartition("#")
    return place, options


def read_description(folder: Path | str) -> dict[str, Any]:
    """Return the type, config and metadata of a saved module; ValueError if there is none."""
    path = Path(folder) / "config.json"
    if not all((Path(folder) / file).is_file() for file in FILES):
        raise ValueError(f"{folder} holds no saved module; expected {' and '.join(FILES)} in it")
    description = read_json(path)
    types = {"type": str, "config": dict, "metadata": dict}
    told: dict[str, Any] = {"metadata": {}} | description if isinstance(description, dict) else {}
    if not all(isinstance(told.get(key), kind) for key, kind in types.items()):
        raise ValueError(f"{path} is not a module's description; expected the keys type, config and metadata")
    refuse_newer(description.get("format", 1), path)
    return former.description(description)


def refuse_newer(form: Any, path: Path | str) -> None:
    """Raise ValueError if a file is of a later natgym, in whose form things may mean something else."""
    if not isinstance(form, int) or form > FORMAT:
        raise ValueError(f"{path} has format {form}, and this natgym reads up to {FORMAT}; update natgym")


def config_from_dict(config_class: type, values: dict[str, Any]) -> Any:
    """Build a config dataclass from JSON values, by its fields' types; ValueError if they don't fit."""
    fields = [field.name for field in dataclasses.fields(config_class)]
    values = former.settings(values, fields)
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"{config_class.__name__} has no {', '.join(unknown)}; it has {', '.join(fields)}")
    try:
        config = config_class(**typed(config_class, values))
    except TypeError as error:
        raise ValueError(f"{config_class.__name__} can't be built from {sorted(values)}: {error}") from None
    all_finite(config)
    return config
