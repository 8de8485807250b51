"""What a test leaves behind as data: `results.json`, `predictions.csv`, `predictions.npz`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.manifest.record import Manifest
from hiera_video.eval.breakdown import average_precisions, by_class, by_views, confusion_pairs
from hiera_video.eval.calibration import calibration
from hiera_video.eval.class_names import names_of
from hiera_video.eval.evaluate import multi_hot, score, single_labels
from hiera_video.eval.metrics import (
    accuracy,
    bootstrap,
    confusion,
    intervals,
    mean_average_precision,
)
from hiera_video.eval.views import Predictions
from hiera_video.utils.atomic_files import write_atomic

RESAMPLES_OF_MAP = 200


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What was tested."""

    __test__ = False  # not a test case, whatever pytest reads into the name
    model: str
    checkpoint: str
    clips: int
    crops: int
    precision: str
    """What the model computed in, as in `test.precision`."""
    chosen_here: bool = False
    """The checkpoint is a run's best on this very list: its number is that of a choice."""

    @property
    def views(self) -> str:
        """Such as "5×3"."""
        return f"{self.clips}×{self.crops}"


def write_results(
    folder: Path, tested: Tested, predictions: Predictions, manifest: Manifest
) -> dict[str, Any]:
    """Write the three files; return what `results.json` holds. The same predictions give the same bytes.

    `predictions.csv` has a line a video (its five likeliest classes); `predictions.npz` has `rows` [N] and `logits`
    [N, V, K], for other ensembles than the mean without running the model again.
    """
    names = names_of(manifest.class_names, predictions.logits.shape[2])
    numbers = _several_labels if manifest.multi_label else _one_label
    results = {
        **score(predictions, manifest),
        **asdict(tested),
        "views": tested.views,
        "manifest": manifest.source,
        **numbers(predictions, manifest, tested, names),
        "broken": [
            {"row": item.row, "path": item.path, "reason": item.reason}
            for item in predictions.broken
        ],
    }
    archive = io.BytesIO()
    np.savez_compressed(archive, rows=predictions.rows, logits=predictions.logits)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "predictions.csv", _lines(predictions, manifest, names))
    write_atomic(folder / "predictions.npz", archive.getvalue())
    write_atomic(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    return results


def _one_label(
    predictions: Predictions, manifest: Manifest, tested: Tested, names: Sequence[str]
) -> dict[str, Any]:
    labels, shares = single_labels(manifest, predictions.rows), predictions.probabilities()
    counts = confusion(shares, labels)
    single = accuracy(
        predictions.logits.reshape(-1, len(names)).astype(np.float64),
        labels.repeat(predictions.logits.shape[1]),
    )
    return {
        "intervals": intervals(shares, labels),
        "single_view": {name: single[name] for name in ("top1", "top5")},
        "by_views": by_views(predictions, labels, tested.clips, tested.crops),
        "calibration": calibration(shares, labels),
        "classes": by_class(counts, names),
        "confusion_pairs": confusion_pairs(counts, names),
    }


def _several_labels(
    predictions: Predictions, manifest: Manifest, tested: Tested, names: Sequence[str]
) -> dict[str, Any]:
    shares = predictions.probabilities(multi_label=True)
    hot = multi_hot(manifest, predictions.rows, len(names))

    def value(chosen: NDArray[np.int64]) -> float:
        return mean_average_precision(shares[chosen], hot[chosen])["mAP"]

    return {
        "intervals": {"mAP": bootstrap(value, len(hot), RESAMPLES_OF_MAP)},
        "by_views": by_views(predictions, hot, tested.clips, tested.crops),
        "classes": average_precisions(shares, hot, names),
    }


def _lines(predictions: Predictions, manifest: Manifest, names: Sequence[str]) -> str:
    top = min(5, len(names))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranks = [f"{what}_{rank}" for rank in range(2, top + 1) for what in ("answer", "probability")]
    writer.writerow(
        ["row", "path", "label", "answer", "probability", "label_name", "answer_name", *ranks]
    )
    shares = predictions.probabilities(multi_label=manifest.multi_label)
    for row, line in zip(predictions.rows.tolist(), shares):
        record = manifest.records[row]
        labels = record.label if isinstance(record.label, tuple) else (record.label,)
        given = [label for label in labels if label is not None]
        order = np.argsort(-line, kind="stable")[:top].tolist()
        writer.writerow(
            [
                *(row, record.path, ";".join(map(str, given)), order[0], f"{line[order[0]]:.6f}"),
                *(";".join(names[label] for label in given), names[order[0]]),
                *(item for index in order[1:] for item in (index, f"{line[index]:.6f}")),
            ]
        )
    return text.getvalue()
