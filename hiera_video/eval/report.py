"""`report.html`: one page that shows where a model is wrong; no network, no script, readable on a phone."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.data.sampling import frame_range_of
from hiera_video.errors import DecodeError
from hiera_video.eval.class_names import names_of
from hiera_video.eval.evaluate import single_labels
from hiera_video.eval.metrics import confusion
from hiera_video.eval.views import Predictions
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.viz.plots import (
    accuracy_by_views,
    calibration_curve,
    confusion_matrix,
    loss_curve,
    score_curve,
)
from hiera_video.viz.strips import film_strip

FRAMES_OF_STRIP, MISTAKES, SAMPLES, SLOWEST = 6, 12, 12, 8
MATRIX_UP_TO = 60
"""Classes; a larger matrix cannot be read, its pairs can."""


def write_report(
    folder: Path,
    results: dict[str, Any],
    predictions: Predictions,
    manifest: Manifest,
    metrics: Sequence[dict[str, Any]],
    decoder: Backend = "pyav",
) -> Path:
    """Write the page from `results` (those of `results.json`) and `metrics` (the rows of `metrics.jsonl`); the film strips
    are read with `decoder`."""
    names = names_of(manifest.class_names, predictions.logits.shape[2])
    shares = predictions.probabilities(multi_label=manifest.multi_label)
    main = "mAP" if manifest.multi_label else "top1"
    pictures = {"Accuracy by number of views": accuracy_by_views(results["by_views"], main)}
    if "calibration" in results:
        pictures["Calibration"] = calibration_curve(results["calibration"]["curve"])
    if any(row["split"] == "val" and main in row for row in metrics):
        pictures |= {
            "Loss": loss_curve(metrics),
            "Validation while training": score_curve(metrics, main),
        }
    matrix = None
    if not manifest.multi_label and len(names) <= MATRIX_UP_TO:
        matrix = confusion_matrix(
            confusion(shares, single_labels(manifest, predictions.rows)), names
        )
    mistakes, samples = _chosen(shares, predictions, manifest)
    page = Environment(
        loader=PackageLoader("hiera_video.eval", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
    html = page.render(
        results=results,
        main=main,
        pictures={title: _data_url(picture) for title, picture in pictures.items()},
        matrix=_data_url(matrix) if matrix else None,
        matrix_width=min(240 + 36 * len(names), 1040),
        classes=sorted(results["classes"], key=lambda row: _share(row, main)),
        clips={
            "Most confident mistakes": _clips(
                mistakes, predictions, manifest, shares, names, decoder
            ),
            "Other answers, drawn at random": _clips(
                samples, predictions, manifest, shares, names, decoder
            ),
        },
        slow=_slow(predictions, manifest),
    )
    write_atomic(folder / "report.html", html)
    return folder / "report.html"


def _share(row: dict[str, Any], main: str) -> float:
    value = row["average_precision"] if main == "mAP" else row["recall"]
    return 101.0 if value is None else float(value)  # classes without a video come last


def _right(place: int, answer: int, predictions: Predictions, manifest: Manifest) -> bool:
    return answer in as_tuple(manifest.records[int(predictions.rows[place])].label)


def _chosen(
    shares: NDArray[np.float64], predictions: Predictions, manifest: Manifest
) -> tuple[list[int], list[int]]:
    """Places of the mistakes that the model was surest of, and of some others, by a fixed seed."""
    answers = shares.argmax(axis=1)
    sure = np.argsort(-shares.max(axis=1), kind="stable").tolist()
    wrong = [
        place for place in sure if not _right(place, int(answers[place]), predictions, manifest)
    ]
    others = sorted(set(range(len(answers))) - set(wrong[:MISTAKES]))
    random.Random("report").shuffle(others)
    return wrong[:MISTAKES], others[:SAMPLES]


def _clips(
    places: Sequence[int],
    predictions: Predictions,
    manifest: Manifest,
    shares: NDArray[np.float64],
    names: Sequence[str],
    decoder: Backend,
) -> list[dict[str, Any]]:
    clips = []
    for place in places:
        record = manifest.records[int(predictions.rows[place])]
        try:
            with open_video(record.source, decoder) as video:
                times = video.times[: record.num_frames]  # a list of frame folders may use a part
                window = frame_range_of(times, video.fps, record.start_seconds, record.end_seconds)
                last = window.num_frames - 1
                frames = video.frames(
                    [
                        window.first + round(last * step / (FRAMES_OF_STRIP - 1))
                        for step in range(FRAMES_OF_STRIP)
                    ]
                )
        except (
            DecodeError
        ):  # the end of a video that the test's clips did not touch may still be damaged
            continue
        order = np.argsort(-shares[place], kind="stable")[:3].tolist()
        clips.append(
            {
                "strip": _data_url(film_strip(frames)),
                "file": Path(record.path).name,
                "row": record.row,
                "label": ", ".join(names[label] for label in as_tuple(record.label)),
                "answers": [(names[index], float(shares[place, index])) for index in order],
                "right": _right(place, order[0], predictions, manifest),
            }
        )
    return clips


def _slow(predictions: Predictions, manifest: Manifest) -> dict[str, Any] | None:
    """The videos that took longest to read, where that was measured."""
    seconds = predictions.seconds
    if seconds is None or not len(seconds):
        return None
    slowest = np.argsort(-seconds, kind="stable")[:SLOWEST].tolist()
    return {
        "median": float(np.median(seconds)),
        "videos": [
            (float(seconds[place]), Path(manifest.records[int(predictions.rows[place])].path).name)
            for place in slowest
        ],
    }


def _data_url(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()
