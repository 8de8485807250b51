"""The report of a test: one HTML page without scripts or network access, readable on a phone."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.data.clip_frames import record_frame_range
from hiera_video.data.manifest.record import Manifest, Record, as_tuple
from hiera_video.errors import DecodeError
from hiera_video.eval.class_names import output_names
from hiera_video.eval.evaluate import single_labels
from hiera_video.eval.metrics import confusion
from hiera_video.eval.views import Predictions
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.pages import render_page
from hiera_video.utils.short_paths import short_paths
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.video.reader import Frames
from hiera_video.viz.plots import (
    accuracy_by_views,
    calibration_curve,
    confusion_matrix,
    loss_curve,
    score_curve,
)
from hiera_video.viz.strips import film_strip

STRIP_FRAMES, MAX_MISTAKES, MAX_SAMPLES, MAX_SLOWEST = 6, 12, 12, 8
DrawEvidence = Callable[[Record, int], Frames]
"""Returns frames of a video, uint8 [T, H, W, 3], with the evidence for a class drawn over them."""
MAX_MATRIX_CLASSES = 60
"""A larger confusion matrix is unreadable; its most frequent pairs are listed anyway."""


@dataclass(frozen=True, kw_only=True)
class ReportExample:
    """A video of the report with its prediction."""

    strip: str
    """Film strip, as a data URL."""
    evidence: str | None
    """Film strip with the evidence for the first class, as a data URL; None without one."""
    file: str
    row: int
    label: str
    """Names of its labels; empty without one."""
    top_classes: list[tuple[str, float]]
    """(name, probability) of the three most likely classes."""
    correct: bool


@dataclass(frozen=True, kw_only=True)
class SlowVideos:
    """Time to read a video."""

    median: float
    """Seconds."""
    videos: list[tuple[float, str]]
    """(seconds, file) of the slowest."""


def write_report(
    folder: Path,
    results: dict[str, Any],
    predictions: Predictions,
    manifest: Manifest,
    metrics: Sequence[dict[str, Any]],
    decoder: Backend = "pyav",
    draw_evidence: DrawEvidence | None = None,
) -> Path:
    """Write `report.html` into `folder`.

    Args:
        folder: The run's folder.
        results: Content of `results.json`.
        predictions: The predictions that `results` summarises.
        manifest: The tested videos, with labels.
        metrics: Rows of the run's `metrics.jsonl`; empty where the run was not trained here.
        decoder: Reads the frames of the film strips.
        draw_evidence: Draws the evidence for the predicted class over a mistake's frames.

    Returns:
        The path of the page.
    """
    names = output_names(manifest.class_names, predictions.logits.shape[2])
    probabilities = predictions.probabilities(multi_label=manifest.multi_label)
    records = [manifest.records[row] for row in predictions.rows.tolist()]
    metric = "mAP" if manifest.multi_label else "top1"
    files = short_paths(record.path for record in records)
    matrix = None
    if not manifest.multi_label and len(names) <= MAX_MATRIX_CLASSES:
        counts = confusion(probabilities, single_labels(manifest, predictions.rows))
        matrix = data_url(confusion_matrix(counts, names))
    html = render_page(
        "hiera_video.eval",
        "report.html",
        results=results,
        metric=metric,
        plots=_plots(results, metrics, metric),
        matrix=matrix,
        matrix_width=min(240 + 36 * len(names), 1040),
        classes=_hardest_first(results["classes"], metric),
        examples=_examples(records, probabilities, names, files, decoder, draw_evidence),
        slow=_slowest(records, predictions.seconds, files),
    )
    write_atomic(folder / "report.html", html)
    return folder / "report.html"


def _plots(
    results: dict[str, Any], metrics: Sequence[dict[str, Any]], metric: str
) -> dict[str, str]:
    plots = {"Accuracy by number of views": accuracy_by_views(results["by_views"], metric)}
    if "calibration" in results:
        plots["Calibration"] = calibration_curve(results["calibration"]["curve"])
    if any(row["split"] == "val" and metric in row for row in metrics):
        plots["Loss"] = loss_curve(metrics)
        plots["Validation during training"] = score_curve(metrics, metric)
    return {title: data_url(plot) for title, plot in plots.items()}


def _hardest_first(rows: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    key = "average_precision" if metric == "mAP" else "recall"
    return sorted(rows, key=lambda row: 101.0 if row[key] is None else row[key])


def _examples(
    records: Sequence[Record],
    probabilities: NDArray[np.float64],
    names: Sequence[str],
    files: Mapping[str, str],
    decoder: Backend,
    draw_evidence: DrawEvidence | None,
) -> dict[str, list[ReportExample]]:
    """Return the videos of each of the page's two sections, by its title.

    Args:
        records: The tested videos.
        probabilities: [N, K].
        names: Name of each class.
        files: Path → what the page shows of it.
        decoder: Backend that decodes the film strips.
        draw_evidence: As in `write_report`.
    """
    mistakes, others = _choose_examples(records, probabilities)
    sections = {
        "Most confident mistakes": (mistakes, draw_evidence),
        "Other predictions, drawn at random": (others, None),
    }
    return {
        title: [
            example
            for index in indices
            if (
                example := _example(
                    records[index], probabilities[index], names, files, decoder, draw
                )
            )
        ]
        for title, (indices, draw) in sections.items()
    }


def _choose_examples(
    records: Sequence[Record], probabilities: NDArray[np.float64]
) -> tuple[list[int], list[int]]:
    """Return indices of the most confident mistakes, and of random other videos (fixed seed)."""
    top = probabilities.argmax(axis=1).tolist()
    by_confidence = np.argsort(-probabilities.max(axis=1), kind="stable").tolist()
    wrong = [index for index in by_confidence if not _is_label(top[index], records[index])]
    mistakes = wrong[:MAX_MISTAKES]
    others = sorted(set(range(len(records))) - set(mistakes))
    random.Random("report").shuffle(others)
    return mistakes, others[:MAX_SAMPLES]


def _is_label(index: int, record: Record) -> bool:
    return index in as_tuple(record.label)


def _example(
    record: Record,
    probabilities: NDArray[np.float64],
    names: Sequence[str],
    files: Mapping[str, str],
    decoder: Backend,
    draw_evidence: DrawEvidence | None,
) -> ReportExample | None:
    """Return the report's entry for a video; None if its frames cannot be decoded.

    That happens although the video was tested: its end may be damaged where no test clip reaches.
    """
    try:
        frames = _strip_frames(record, decoder)
    except DecodeError:
        return None
    top = np.argsort(-probabilities, kind="stable")[:3].tolist()
    return ReportExample(
        strip=data_url(film_strip(frames)),
        evidence=_evidence_strip(record, top[0], draw_evidence),
        file=files[record.path],
        row=record.row,
        label=", ".join(names[label] for label in as_tuple(record.label)),
        top_classes=[(names[index], float(probabilities[index])) for index in top],
        correct=_is_label(top[0], record),
    )


def _strip_frames(record: Record, decoder: Backend) -> Frames:
    with open_video(record.source, decoder) as video:
        frames = record_frame_range(video, record)
        last = frames.num_frames - 1
        steps = range(STRIP_FRAMES)
        return video.frames([frames.first + round(last * i / (STRIP_FRAMES - 1)) for i in steps])


def _evidence_strip(record: Record, target: int, draw: DrawEvidence | None) -> str | None:
    """Return a film strip as a data URL; None if its frames cannot be decoded, as above."""
    if draw is None:
        return None
    try:
        frames = draw(record, target)
    except DecodeError:
        return None
    chosen = np.linspace(0, len(frames) - 1, STRIP_FRAMES).round().astype(int)
    return data_url(film_strip(frames[chosen]))


def _slowest(
    records: Sequence[Record], seconds: NDArray[np.float64] | None, files: Mapping[str, str]
) -> SlowVideos | None:
    if seconds is None or not len(seconds):
        return None
    slowest = np.argsort(-seconds, kind="stable")[:MAX_SLOWEST].tolist()
    return SlowVideos(
        median=float(np.median(seconds)),
        videos=[(float(seconds[index]), files[records[index].path]) for index in slowest],
    )


def data_url(picture: bytes) -> str:
    """Return a PNG or JPEG as a URL that holds it."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
