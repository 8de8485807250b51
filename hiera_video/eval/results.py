"""Result files of a test: `results.json`, `predictions.csv` and `predictions.npz`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.eval.breakdown import average_precisions, by_class, by_views, confusion_pairs
from hiera_video.eval.calibration import calibration
from hiera_video.eval.class_names import output_names
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
from hiera_video.utils.text_files import csv_cell

MAP_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class EvalSetup:
    """The model that was tested, and how; recorded in `results.json`."""

    model: str
    checkpoint: str
    clips: int
    crops: int
    precision: str
    """As in `test.precision`."""
    chosen_here: bool = False
    """The checkpoint was selected by its accuracy on the test list, so its result is optimistic."""

    @property
    def views(self) -> str:
        """Clips × crops, such as "5×3"."""
        return f"{self.clips}×{self.crops}"


def write_results(
    folder: Path, setup: EvalSetup, predictions: Predictions, manifest: Manifest
) -> dict[str, Any]:
    """Write the three result files; equal predictions give equal bytes.

    `predictions.csv` has a line for each video with its five most likely classes;
    `predictions.npz` has `rows` [N] and `logits` [N, V, K], from which other ensembles of the views
    can be computed.

    Args:
        folder: The run's folder; created if necessary.
        setup: What was tested.
        predictions: The model's logits for the videos of `manifest`.
        manifest: The videos, with labels.

    Returns:
        The content of `results.json`.
    """
    names = output_names(manifest.class_names, predictions.logits.shape[2])
    details = _multi_label_details if manifest.multi_label else _single_label_details
    results = {
        **score(predictions, manifest),
        **asdict(setup),
        "views": setup.views,
        "manifest": manifest.source,
        **details(predictions, manifest, setup, names),
        "broken": [
            {"row": video.row, "path": video.path, "reason": video.reason}
            for video in predictions.unreadable
        ],
    }
    archive = io.BytesIO()
    np.savez_compressed(archive, rows=predictions.rows, logits=predictions.logits)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "predictions.csv", _csv(predictions, manifest, names))
    write_atomic(folder / "predictions.npz", archive.getvalue())
    write_atomic(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    return results


def _single_label_details(
    predictions: Predictions, manifest: Manifest, setup: EvalSetup, names: Sequence[str]
) -> dict[str, Any]:
    labels = single_labels(manifest, predictions.rows)
    probabilities = predictions.probabilities()
    counts = confusion(probabilities, labels)
    view_logits = predictions.logits.reshape(-1, len(names)).astype(np.float64)
    single_view = accuracy(view_logits, labels.repeat(predictions.logits.shape[1]))
    return {
        "intervals": intervals(probabilities, labels),
        "single_view": {name: single_view[name] for name in ("top1", "top5")},
        "by_views": by_views(predictions, labels, setup.clips, setup.crops),
        "calibration": calibration(probabilities, labels),
        "classes": by_class(counts, names),
        "confusion_pairs": confusion_pairs(counts, names),
    }


def _multi_label_details(
    predictions: Predictions, manifest: Manifest, setup: EvalSetup, names: Sequence[str]
) -> dict[str, Any]:
    labels = multi_hot(manifest, predictions.rows, len(names))
    probabilities = predictions.probabilities(multi_label=True)

    def mean_ap(sample: NDArray[np.int64]) -> float:
        if not labels[sample].any():  # no class occurs
            return math.nan
        return mean_average_precision(probabilities[sample], labels[sample])["mAP"]

    return {
        "intervals": (
            {"mAP": bootstrap(mean_ap, len(labels), MAP_RESAMPLES)} if labels.any() else {}
        ),
        "by_views": by_views(predictions, labels, setup.clips, setup.crops),
        "classes": average_precisions(probabilities, labels, names),
    }


def _csv(predictions: Predictions, manifest: Manifest, names: Sequence[str]) -> str:
    top = min(5, len(names))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("row", "path", "label", "answer", "probability", "label_name", "answer_name"),
            *(f"{name}_{rank}" for rank in range(2, top + 1) for name in ("answer", "probability")),
        ]
    )
    probabilities = predictions.probabilities(multi_label=manifest.multi_label)
    for row, line in zip(predictions.rows.tolist(), probabilities):
        record = manifest.records[row]
        labels = as_tuple(record.label)
        best, *others = np.argsort(-line, kind="stable")[:top].tolist()
        writer.writerow(
            [
                *(
                    row,
                    csv_cell(record.path),
                    ";".join(map(str, labels)),
                    best,
                    f"{line[best]:.6f}",
                ),
                *(csv_cell(";".join(names[label] for label in labels)), csv_cell(names[best])),
                *(item for index in others for item in (index, f"{line[index]:.6f}")),
            ]
        )
    return text.getvalue()
