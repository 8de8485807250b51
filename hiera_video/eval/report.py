"""What a test leaves behind: `results.json`, predictions by manifest row, and one page to look at."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from hiera_video.data.decode import open_video
from hiera_video.data.manifest import Manifest
from hiera_video.errors import DecodeError
from hiera_video.eval.evaluate import score, single_labels
from hiera_video.eval.metrics import confusion
from hiera_video.eval.views import Predictions
from hiera_video.viz.plots import confusion_matrix, training_curves
from hiera_video.viz.strips import film_strip

FRAMES_OF_STRIP, CLIPS_SHOWN = 6, 24


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What was tested, for the heading of the page."""

    model: str
    checkpoint: str
    views: str
    """Such as "5×3"."""


def write_results(folder: Path, tested: Tested, predictions: Predictions, manifest: Manifest) -> dict[str, Any]:
    """`results.json`, `predictions.csv` (a line a video) and `predictions.npz` (row, logits [N, V, K]). Returns the first."""
    results = {
        **score(predictions, manifest),
        **asdict(tested),
        "manifest": manifest.source,
        "broken": [{"row": item.row, "path": item.path, "reason": item.reason} for item in predictions.broken],
    }
    probabilities = predictions.probabilities(multi_label=manifest.multi_label)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["row", "path", "label", "answer", "probability"])
    for row, shares in zip(predictions.rows.tolist(), probabilities):
        record, answer = manifest.records[row], int(shares.argmax())
        label = ";".join(map(str, record.label)) if isinstance(record.label, tuple) else record.label
        writer.writerow([row, record.path, label, answer, f"{shares[answer]:.6f}"])
    archive = io.BytesIO()
    np.savez_compressed(archive, rows=predictions.rows, logits=predictions.logits)
    _write(folder / "predictions.csv", lines.getvalue().encode())
    _write(folder / "predictions.npz", archive.getvalue())
    _write(folder / "results.json", json.dumps(results, indent=1).encode())
    return results


def write_report(
    folder: Path,
    results: dict[str, Any],
    predictions: Predictions,
    manifest: Manifest,
    metrics: Sequence[dict[str, Any]],
) -> Path:
    """`report.html`: one file, no network. Curves (`metrics`: the rows of `metrics.jsonl`), confusion matrix, classes,
    clips with their answers, videos that could not be read."""
    names = manifest.class_names or tuple(str(index) for index in range(predictions.logits.shape[2]))
    probabilities = predictions.probabilities(multi_label=manifest.multi_label)
    pictures, classes = {}, []
    if any(row["split"] == "val" for row in metrics):
        pictures["Training"] = training_curves(metrics, "mAP" if manifest.multi_label else "top1")
    if not manifest.multi_label:
        counts = confusion(probabilities, single_labels(manifest, predictions.rows))
        pictures["Confusion: label down, answer across"] = confusion_matrix(counts, names)
        totals = counts.sum(axis=1)
        classes = [(names[k], 100 * counts[k, k] / totals[k], totals[k]) for k in totals.nonzero()[0]]
    page = Environment(loader=PackageLoader("hiera_video.eval", "."), autoescape=True).get_template("report.html")
    html = page.render(
        results=results,
        pictures={title: _data_url(picture) for title, picture in pictures.items()},
        classes=sorted(classes, key=lambda item: item[1]),
        clips=_clips(predictions, manifest, probabilities, names),
    )
    _write(folder / "report.html", html.encode())
    return folder / "report.html"


def _clips(
    predictions: Predictions, manifest: Manifest, probabilities: NDArray[np.float64], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Film strips of some videos, wrong answers first, chosen by a fixed seed."""
    chosen = list(range(len(predictions.rows)))
    random.Random("report").shuffle(chosen)
    answers = probabilities.argmax(axis=1)

    def right(place: int) -> bool:
        label = manifest.records[int(predictions.rows[place])].label
        return bool(answers[place] in label if isinstance(label, tuple) else answers[place] == label)

    wrong = [place for place in chosen if not right(place)][: CLIPS_SHOWN // 3]
    shown = wrong + [place for place in chosen if right(place)][: CLIPS_SHOWN - len(wrong)]
    clips = []
    for place in shown:
        record = manifest.records[int(predictions.rows[place])]
        try:
            with open_video(record.path) as video:
                last = video.info.num_frames - 1
                frames = video.frames([round(last * step / (FRAMES_OF_STRIP - 1)) for step in range(FRAMES_OF_STRIP)])
        except DecodeError:  # the end of a video that the test's clips did not touch may still be damaged
            continue
        labels = record.label if isinstance(record.label, tuple) else (record.label,)
        clips.append(
            {
                "strip": _data_url(film_strip(frames)),
                "file": Path(record.path).name,
                "label": ", ".join(names[label] for label in labels if label is not None),
                "answer": names[int(answers[place])],
                "probability": float(probabilities[place].max()),
                "right": right(place),
            }
        )
    return clips


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
