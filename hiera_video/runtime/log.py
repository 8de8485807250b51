"""Metric logs: `metrics.jsonl` always, TensorBoard if installed, wandb or a similar logger if set.

Imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiera_video.errors import ConfigError
from hiera_video.utils.atomic_files import write_atomic

LOGGER_METHODS = ("init", "log", "finish")
PROJECT = "hiera-video"


class MetricLog:
    """Log of a run's metrics in `<run>/metrics.jsonl` and `<run>/tensorboard/`.

    A row is `{"step": 120, "split": "train", "loss": 1.73, …}`.

    Args:
        run: Folder of the run.
        first_step: Step at which the run starts or resumes. Rows from this step on, which an
            interrupted run wrote after its last checkpoint, are dropped, so that each step is
            logged once.
        logger: Name of a module with wandb's `init`, `log` and `finish` that receives the numbers
            too.
        config: Configuration passed to the logger's `init`.

    Raises:
        ConfigError: `logger` is not installed or lacks one of these functions.
    """

    def __init__(
        self,
        run: Path,
        *,
        first_step: int,
        logger: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = run / "metrics.jsonl"
        kept = [row for row in read_metrics(self.path) if row["step"] < first_step]
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self.path.open("a")
        self._board: Any = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)
        self._logger = _start_logger(logger, run, config or {}) if logger else None

    def write(self, step: int, split: str, **numbers: Any) -> None:
        """Append one row; values that are not numbers go to `metrics.jsonl` only."""
        self._file.write(json.dumps({"step": step, "split": split, **numbers}) + "\n")
        self._file.flush()
        scalars = {
            f"{split}/{name}": value
            for name, value in numbers.items()
            if isinstance(value, int | float)
        }
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
        if self._logger is not None:
            self._logger.log(scalars, step=step)

    def close(self) -> None:
        """Flush the logs to disk and close them."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._logger is not None:
            self._logger.finish()


def require_logger(name: str | None) -> None:
    """Raise `ConfigError` if the module `name` is not installed, without importing it."""
    if name is None or (name.isidentifier() and importlib.util.find_spec(name) is not None):
        return
    package = "'hiera-video[wandb]'" if name == "wandb" else name
    raise ConfigError(
        f"train.logger={name}: not installed; pip install {package}, or leave train.logger unset"
    )


def _start_logger(name: str, run: Path, config: Mapping[str, Any]) -> Any:
    """Import the module `name` and start a run in it, or resume the one that `run` started.

    The id of the logger's run is kept in `<run>/logger_id`. Only arguments that the module's `init`
    accepts are passed.

    Returns:
        The module.

    Raises:
        ConfigError: The module is not installed or lacks one of `LOGGER_METHODS`.
    """
    require_logger(name)
    module = importlib.import_module(name)
    missing = [method for method in LOGGER_METHODS if not callable(getattr(module, method, None))]
    if missing:
        raise ConfigError(
            f"train.logger={name}: has no {', '.join(missing)}; choose a module with wandb's "
            f"{', '.join(LOGGER_METHODS)}, such as wandb, swanlab or trackio"
        )
    id_file = run / "logger_id"
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex[:12])
    arguments = {
        "project": PROJECT,
        "name": run.resolve().name,
        "config": dict(config),
        "dir": str(run),
        "id": id_file.read_text(),
        "resume": "allow",
    }
    accepted = inspect.signature(module.init).parameters
    if "id" not in accepted:  # without our id, `resume` would pick another run
        arguments.pop("resume")
    module.init(**{key: value for key, value in arguments.items() if key in accepted})
    return module


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a `metrics.jsonl`, without a last line that a kill left incomplete."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
