"""Modules and names of before, for one release: they are found, and warn what they are called now."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# A module of before -> where its names are now.
MODULES: dict[str, tuple[str, ...]] = {
    "natgym.analysis": ("natgym.figures.policies", "natgym.figures.comparisons", "natgym.figures.trainings"),
    "natgym.comparison": ("natgym.evaluation.comparison",),
    "natgym.cost": ("natgym.evaluation.cost",),
    "natgym.drawing": ("natgym.figures.style",),
    "natgym.films": ("natgym.figures.films",),
    "natgym.judge": ("natgym.evaluation.scorer", "natgym.metrics"),
    "natgym.loading": ("natgym._former",),
    "natgym.pictures": ("natgym.env.rendering",),
    "natgym.protocol": ("natgym.evaluation.protocol", "natgym.evaluation.comparison"),
    "natgym.recorder": ("natgym.env.recorder",),
    "natgym.reference": ("natgym.metrics.reference", "natgym.metrics.extractors"),
    "natgym.report": ("natgym.evaluation.report",),
    "natgym.rewards.base": ("natgym.rewards",),
    "natgym.search_analysis": ("natgym.figures.searches",),
    "agents.adanat_config": ("agents.adanat.config",),
    "agents.alarms": ("agents.adanat.alarms",),
    "agents.class_table": ("agents.autonat.class_table",),
    "agents.cluster": ("agents.distributed.cluster",),
    "agents.cotraining": ("agents.adanat.cotraining",),
    "agents.critic": ("agents.adanat.critic",),
    "agents.fixed": ("natgym.policies",),
    "agents.measure": ("agents.autonat.scorer",),
    "agents.optimizers": ("agents.autonat.optimizers",),
    "agents.policy": ("agents.adanat.network", "agents.adanat.actor"),
    "agents.strategies": ("agents.autonat.strategies",),
    "agents.trainings": ("agents.adanat.trainings",),
    "agents.training_search": ("agents.autonat.masks",),
    "agents.tune_jobs": ("agents.adanat.sweeps", "agents.distributed.jobs"),
    "agents.tune_search": ("agents.autonat.tune_search",),
    "agents.workers": ("agents.distributed.workers",),
}
NAMES = {"Judge": "Scorer", "Meter": "ScheduleScorer", "Protocol": "EvaluationProtocol"}


class Finder(MetaPathFinder, Loader):
    """Makes a module of before, whose names are looked up where they are now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        def look_up(name: str) -> Any:
            today = NAMES.get(name, name)
            for home in () if name.startswith("__") else MODULES[module.__name__]:
                if hasattr(found := importlib.import_module(home), today):
                    said = f"{module.__name__}.{name} is now {home}.{today}"
                    warnings.warn(said, DeprecationWarning, stacklevel=2)
                    return getattr(found, today)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        vars(module)["__getattr__"] = look_up


def install() -> None:
    """Let modules of before be found, after all others."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())


def load_generator(spec: Any, device: Any = "cpu") -> tuple[Any, str | None]:
    """Return a task's generator and its name; a live generator as it is."""
    from natgym.task import Task

    warnings.warn("load_generator is now Task.load(name).generator", DeprecationWarning, stacklevel=2)
    if hasattr(spec, "mask_id"):
        return spec, None
    task = Task.load(spec, device=device)
    return task.generator, task.name


def load_companion(spec: Any, kind: str, task: str | None, device: Any = "cpu") -> Any:
    """Return a task's tokenizer or classifier; a live one as it is."""
    from natgym.task import Task

    kind = {"classifier": "score_extractor"}.get(kind, kind)
    warnings.warn(f"load_companion is now Task.load(name).{kind}", DeprecationWarning, stacklevel=2)
    return getattr(Task.load(task or "digits", device=device, **{kind: spec}), kind)
