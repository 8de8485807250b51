"""Metric logs: `metrics.jsonl` always, TensorBoard if installed, wandb or a similar logger if set.

Imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import logging
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiera_video.errors import ConfigError
from hiera_video.utils.atomic_files import write_atomic

logger = logging.getLogger(__name__)
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
        self._board = _start_board(run / "tensorboard", first_step)
        self._logger = _start_logger(logger, run, config or {}) if logger else None

    def write(self, step: int, split: str, **numbers: Any) -> None:
        """Append one row; values that are not numbers go to `metrics.jsonl` only."""
        try:
            self._file.write(json.dumps({"step": step, "split": split, **numbers}) + "\n")
            self._file.flush()
        except OSError as error:
            error.filename = error.filename or str(self.path)  # a full disk does not name the file
            raise
        scalars = {
            f"{split}/{name}": value
            for name, value in numbers.items()
            if isinstance(value, int | float)
        }
        with self._board_errors():
            for name, value in scalars.items() if self._board is not None else ():
                self._board.add_scalar(name, value, step)
        if self._logger is not None:
            self._logger.log(scalars, step=step)

    def close(self) -> None:
        """Flush the logs to disk and close them."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with self._board_errors():
            if self._board is not None:
                self._board.close()
        if self._logger is not None:
            self._logger.finish()

    @contextmanager
    def _board_errors(self) -> Iterator[None]:
        """Give up TensorBoard, but not the run, if its folder was deleted or its disk is full."""
        try:
            yield
        except OSError as error:
            self._board = None
            logger.warning(
                "%s cannot be written (%s); TensorBoard gets no more numbers, metrics.jsonl does",
                self.path.with_name("tensorboard"), error.strerror,
            )  # fmt: skip


def _start_board(folder: Path, first_step: int) -> Any:
    """Return TensorBoard's writer; None if it is not installed or cannot be imported."""
    if not importlib.util.find_spec("tensorboard"):
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # its own dependencies may clash in any way
        logger.warning(
            "TensorBoard cannot be imported (%s: %s) and gets no numbers, metrics.jsonl does",
            type(error).__name__, error,
        )  # fmt: skip
        return None
    threading.excepthook = _report_thread_error
    return SummaryWriter(str(folder), purge_step=first_step)


_report_other_threads = threading.excepthook


def _report_thread_error(error: threading.ExceptHookArgs) -> None:
    """Keep quiet about TensorBoard's thread: the next write raises its error in the main thread."""
    if type(error.thread).__module__ != "tensorboard.summary.writer.event_file_writer":
        _report_other_threads(error)


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
        write_atomic(id_file, uuid.uuid4().hex[:12])
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
    """Read the rows of a `metrics.jsonl`.

    Damaged lines are skipped and counted in a warning, except for a last line that a kill left
    incomplete.
    """
    if not path.exists():
        return []
    rows, damaged = [], []
    lines = path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row["step"], int) or not isinstance(row["split"], str):
                raise ValueError("its step or split")
            rows.append(row)
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged.append(number)
    if damaged and damaged != [len(lines)]:
        logger.warning(
            "%s: skipped %d damaged lines, the first is line %d", path, len(damaged), damaged[0]
        )
    return rows
