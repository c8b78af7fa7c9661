"""The reference: a page for each package that has public names, which are those of its `__all__`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

TOP = ("natgym", "agents", "generators")


class Public(NamedTuple):
    """A public name and where the object stands."""

    name: str
    home: str  # the module
    value: Any

    @property
    def path(self) -> str:
        return f"{self.home}.{self.name}"


@cache
def packages() -> dict[str, list[Public]]:
    """Return the public names of every package that says what they are."""
    found = {}
    for top in TOP:
        module = importlib.import_module(top)
        below = [info.name for info in pkgutil.iter_modules(module.__path__, f"{top}.") if info.ispkg]
        for name in (top, *sorted(below)):
            package = importlib.import_module(name)
            if names := [one for one in getattr(package, "__all__", ()) if not one.startswith("__")]:
                found[name] = [_public(package, one) for one in names]
    return found


def _public(package: ModuleType, name: str) -> Public:
    value = getattr(package, name)
    home = getattr(value, "__module__", None) or ""
    if home.partition(".")[0] not in TOP:
        home = getattr(package, "_HOMES", {}).get(name)
    if home is None:  # a constant: the first module below that has it
        below = sorted(module for module in sys.modules if module.startswith(f"{package.__name__}."))
        home = next(module for module in below if vars(sys.modules[module]).get(name) is value)
    return Public(name, home, value)


def page_of(public: Public) -> str:
    """Return the package on whose page a name is described: the narrowest around it that lists it."""
    listing = [name for name, names in packages().items() if public.path in {one.path for one in names}]
    around = [name for name in listing if f"{public.home}.".startswith(f"{name}.")]
    return max(around, key=len) if around else listing[0]


def pages() -> dict[str, str]:
    """Return the pages, and the list of them."""
    made = {f"reference/{name}.md": page(name) for name in packages()}
    rows = [f"| [{name}]({name}.md) | {_summary(importlib.import_module(name))} |" for name in packages()]
    words = "Public are the names that stand here; what else a module has may change without a word."
    listing = ["# API", "", words, "", "| package | |", "|---|---|", *rows]
    return {"reference/index.md": "\n".join(listing) + "\n"} | made


def page(package: str) -> str:
    """Return the page of a package: a table of its names, and what is described here."""
    names = sorted(packages()[package], key=lambda public: public.name.lower())
    rows = [f"| [`{one.name}`][{one.path}] | {_summary(one.value)} |" for one in names]
    parts = [
        f"# {package}",
        (importlib.import_module(package).__doc__ or "").strip(),
        "\n".join(["| name | |", "|---|---|", *rows]),
        *(f"::: {one.path}" for one in names if page_of(one) == package),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(value: Any) -> str:
    if not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)):
        return ""
    first = (inspect.getdoc(value) or "").partition("\n\n")[0]
    return " ".join(first.split()).replace("|", "\\|")
