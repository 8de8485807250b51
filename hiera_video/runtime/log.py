"""`metrics.jsonl` always, TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any


class MetricLog:
    """Rows of numbers by step, in `<run>/metrics.jsonl` and `<run>/tensorboard/`.

    A row is `{"step": 120, "split": "train", "loss": 1.73, …}`. `first_step` > 0 continues a run: rows of later steps,
    which the interrupted run wrote after its last checkpoint, are dropped, so that each step stands there once.
    """

    def __init__(self, run: Path, *, first_step: int) -> None:
        self.path = run / "metrics.jsonl"
        kept = [row for row in read_metrics(self.path) if row["step"] < first_step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        partial.replace(self.path)
        self._file = self.path.open("a")
        self._board: Any = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)

    def write(self, step: int, split: str, **numbers: Any) -> None:
        """Add one row; strings (such as `float.hex`) go to the file alone."""
        self._file.write(json.dumps({"step": step, "split": split, **numbers}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Write everything to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self._board is not None:
            self._board.close()


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
