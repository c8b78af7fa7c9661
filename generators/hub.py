"""Saved things on the Hugging Face Hub: `hf://user/name[@revision][/folder]` is read as a folder is.

Only what is said so is looked for there, and only JSON, safetensors and cards come down: no code, no pickles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

PREFIX = "hf://"
FILES = ("*.json", "*.safetensors", "*.md")  # that go up and come down


class Download(NamedTuple):
    """What came down.

    Attributes:
        root, path: of the repository in the Hub's cache, and of the folder in it that was meant.
        repository: its name, without the user's.
        spec: what the very same is found by again, on any machine.
    """

    root: Path
    path: Path
    repository: str
    spec: str

    @property
    def name(self) -> str:
        """What to call it: after its folder, or its repository."""
        return self.repository if self.path == self.root else self.path.name


def on_hub(spec: Any, revision: str | None = None) -> bool:
    """Tell whether something is to be looked for on the Hub: by its prefix, or by a revision."""
    return revision is not None or str(spec).startswith(PREFIX)


def download(spec: str, revision: str | None = None) -> Download:
    """Fetch what a name of the Hub stands for, unless it is in its cache.

    Args:
        spec: user/name, with hf:// before it or not, perhaps with a folder of the repository behind it.
        revision: commit, tag or branch, unless the spec says it as user/name@revision.

    Raises:
        ValueError: it is no such name, is not there, or can't be reached.
    """
    user, _, rest = spec.removeprefix(PREFIX).partition("/")
    place, _, inside = rest.strip("/").partition("/")
    name, _, said = place.partition("@")
    if not (user and name) or (said and revision):
        raise ValueError(f"{spec!r} is no hf://user/name[@revision][/folder], with its revision said once")
    repo = f"{user}/{name}"
    try:
        found = library().snapshot_download(repo, revision=revision or said or None, allow_patterns=[*FILES])
    except (OSError, ValueError) as error:
        why = str(error).strip().partition("\n")[0]
        raise ValueError(f"{spec} did not come from the Hub: {type(error).__name__}: {why}") from None
    root = Path(found)
    again = "/".join(filter(None, [f"{PREFIX}{repo}@{root.name}", inside]))
    return Download(root, root / inside, name, again)


def library() -> Any:
    """Return huggingface_hub; ValueError if it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError("the Hub needs huggingface_hub; pip install natgym[hub]") from None
    return huggingface_hub
