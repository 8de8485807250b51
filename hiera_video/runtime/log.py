"""`metrics.jsonl` always, TensorBoard where it is installed, a logger like wandb where it is asked for. No torch."""

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
    """Rows of numbers by step, in `<run>/metrics.jsonl` and `<run>/tensorboard/`.

    A row is `{"step": 120, "split": "train", "loss": 1.73, …}`. `first_step` > 0 continues a run: rows of later steps,
    which the interrupted run wrote after its last checkpoint, are dropped, so that each step stands there once.
    logger: a module like wandb that gets the numbers too, told `config` at its start.
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
        self._logger = start_logger(logger, run, config or {}) if logger else None

    def write(self, step: int, split: str, **numbers: Any) -> None:
        """Add one row; strings (such as `float.hex`) go to the file alone."""
        self._file.write(json.dumps({"step": step, "split": split, **numbers}) + "\n")
        self._file.flush()
        plain = {
            f"{split}/{name}": value
            for name, value in numbers.items()
            if isinstance(value, int | float)
        }
        if self._board is not None:
            for name, value in plain.items():
                self._board.add_scalar(name, value, step)
        if self._logger is not None:
            self._logger.log(plain, step=step)

    def close(self) -> None:
        """Write everything to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._logger is not None:
            self._logger.finish()


def require_logger(name: str | None) -> None:
    """Raises `ConfigError` where the module `name` is not installed. Imports nothing."""
    if name is None or (name.isidentifier() and importlib.util.find_spec(name) is not None):
        return
    package = "'hiera-video[wandb]'" if name == "wandb" else name
    raise ConfigError(
        f"train.logger={name}: is not installed; pip install {package}, or leave train.logger unset"
    )


def start_logger(name: str, run: Path, config: Mapping[str, Any]) -> Any:
    """The module `name` with a run begun, or gone on with where `run` has begun one: its id is kept in `run`.

    Of the arguments of wandb's `init` each module is given those that its own has. Raises `ConfigError`.
    """
    require_logger(name)
    module = importlib.import_module(name)
    missing = [method for method in LOGGER_METHODS if not callable(getattr(module, method, None))]
    if missing:
        raise ConfigError(
            f"train.logger={name}: has no {', '.join(missing)}; choose a module with wandb's {', '.join(LOGGER_METHODS)}, "
            "such as wandb, swanlab or trackio"
        )
    record = run / "logger_id"
    if not record.exists():
        record.write_text(uuid.uuid4().hex[:12])
    wanted = {
        "project": PROJECT,
        "name": run.resolve().name,
        "config": dict(config),
        "dir": str(run),
        "id": record.read_text(),
        "resume": "allow",
    }
    known = inspect.signature(module.init).parameters
    if "id" not in known:  # without an id of ours, resuming would mean something else
        wanted.pop("resume")
    module.init(**{key: value for key, value in wanted.items() if key in known})
    return module


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
