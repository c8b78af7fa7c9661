"""Metrics and samples for TensorBoard and Weights & Biases, beside metrics.csv, through SB3's logger."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunLog:
    """What a run measures, for the programs named; without any it does nothing.

    Args:
        names: of `tensorboard`, which reads event files in tensorboard/, and `wandb`, which has a run of its
            own for each folder, said in wandb.json.
        folder: of the run. One that goes on from an update takes the place of what was logged from there on.
    """

    def __init__(self, names: Sequence[str], folder: Path | str) -> None:
        self.names, self.folder = names, Path(folder)
        self._logger: Any = None

    def write(self, update: int, metrics: Mapping[str, Any], samples: Figure | None = None) -> None:
        """Log the metrics of an update that are finite numbers, and a figure of samples."""
        if not self.names:
            return
        from stable_baselines3.common.logger import Figure as Logged
        from stable_baselines3.common.logger import Logger

        if self._logger is None:
            makers = {"tensorboard": _tensorboard, "wandb": _wandb}
            self._logger = Logger(None, [makers[name](self.folder, update) for name in self.names])
        for name, value in metrics.items():
            if name != "update" and isinstance(value, int | float) and math.isfinite(value):
                self._logger.record(name, value)
        if samples is not None:
            self._logger.record("samples", Logged(samples, close=False))
        self._logger.dump(update)

    def close(self) -> None:
        """End the logs; another update begins them anew."""
        if self._logger is not None:
            self._logger.close()
            self._logger = None


def _tensorboard(folder: Path, update: int) -> Any:
    """Return SB3's format, whose readers forget what was logged from an update on."""
    from stable_baselines3.common.logger import TensorBoardOutputFormat
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    output = TensorBoardOutputFormat(str(folder / "tensorboard"))
    begun = Event(step=update, session_log=SessionLog(status=SessionLog.START))
    output.writer._get_file_writer().add_event(begun)  # type: ignore[no-untyped-call]
    return output


def _wandb(folder: Path, update: int) -> Any:
    """Return a format that logs into the run of a folder, begun or gone on with."""
    import wandb
    from stable_baselines3.common.logger import Figure as Logged
    from stable_baselines3.common.logger import KVWriter

    path = folder / "wandb.json"
    before = json.loads(path.read_text())["id"] if path.is_file() else None
    place = {"project": "natgym", "name": "/".join(folder.resolve().parts[-2:]), "dir": str(folder)}
    run = wandb.init(
        **place, id=before, resume="allow", reinit="create_new"
    )  # others may run in this process
    write_atomic(path, json.dumps({"id": run.id}) + "\n")
    run.define_metric("*", step_metric="update")  # its own steps never go back, as a resumed run may

    class WandbOutputFormat(KVWriter):
        def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
            values = {
                key: wandb.Image(value.figure) if isinstance(value, Logged) else value
                for key, value in key_values.items()
            }
            run.log(values | {"update": step})

        def close(self) -> None:
            run.finish()

    return WandbOutputFormat()
