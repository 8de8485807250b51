"""The report of a test of action detection: one HTML page with boxes drawn on key frames."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hiera_video.data.detection.key_frame import BoxManifest, KeyFrame
from hiera_video.data.detection.key_frame_clip import frame_at
from hiera_video.errors import DecodeError
from hiera_video.eval.class_names import output_names
from hiera_video.eval.detection import match_boxes, number_boxes
from hiera_video.eval.detection_results import NOT_FOUND, BoxScores
from hiera_video.eval.report import data_url
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.pages import render_page
from hiera_video.utils.short_paths import short_paths
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.viz.boxes import GREEN, RED, DrawnBox, draw_boxes

MAX_FRAMES = 12
"""Key frames in each section of the page."""
LINES = 16
"""As in `draw_boxes`: the pictures are shown at half their size."""
MAX_SIDE = 640
"""Longer side of a picture in pixels; larger ones are scaled down."""


@dataclass(frozen=True, kw_only=True)
class LabelledBox:
    """A labelled box with its prediction."""

    edges: tuple[float, float, float, float]
    labels: tuple[str, ...]
    """Names of its classes."""
    predicted: str
    """Name of the class of the highest score; `NOT_FOUND` if no scored box overlaps it."""
    score: float
    """Score of that class; 1 for a box that was not found."""
    correct: bool


@dataclass(frozen=True, kw_only=True)
class LabelledFrame:
    """A key frame with its labelled boxes."""

    record: KeyFrame
    boxes: tuple[LabelledBox, ...]

    @property
    def mistake(self) -> float:
        """Highest score of a wrong prediction, 0 without one."""
        return max((box.score for box in self.boxes if not box.correct), default=0.0)


def write_detection_report(
    folder: Path,
    results: dict[str, Any],
    found: BoxScores,
    truth: BoxManifest,
    counted: Sequence[int] | None = None,
    *,
    start_seconds: float = 0.0,
    decoder: Backend = "pyav",
) -> Path:
    """Write `report.html` into `folder`.

    Args:
        folder: The run's folder.
        results: Content of `results.json`, of `write_detection_results`.
        found: The scores that `results` summarises.
        truth: Labelled boxes.
        counted: Classes that count; None: all.
        start_seconds: As in `detect.start_seconds`.
        decoder: Reads the key frames.

    Returns:
        The path of the page.
    """
    frames = label_frames(found, truth, counted)
    files = short_paths(frame.record.path for frame in frames)
    worst = sorted((each for each in frames if each.mistake > 0), key=lambda each: -each.mistake)
    worst = worst[:MAX_FRAMES]
    shown = set(map(id, worst))
    others = [frame for frame in frames if id(frame) not in shown and frame.boxes]
    random.Random("report").shuffle(others)
    sections = {
        "Most confident mistakes": worst,
        "Other key frames, drawn at random": others[:MAX_FRAMES],
    }
    html = render_page(
        "hiera_video.eval",
        "detection_report.html",
        results=results,
        classes=_hardest_first(results["classes"]),
        sections={
            title: [
                {"frame": frame, "file": files[frame.record.path], "picture": picture}
                for frame in chosen
                if (picture := _picture(frame, start_seconds, decoder))
            ]
            for title, chosen in sections.items()
        },
    )
    write_atomic(folder / "report.html", html)
    return folder / "report.html"


def label_frames(
    found: BoxScores, truth: BoxManifest, counted: Sequence[int] | None = None
) -> list[LabelledFrame]:
    """Return the key frames of `truth` that could be read, with a prediction for each box.

    Boxes without a class that counts are left out.
    """
    names = output_names(truth.class_names, truth.num_classes)
    classes = list(range(len(names)) if counted is None else counted)
    read = {(frame.path, frame.second) for frame in found.frames}
    records = [record for record in truth.records if (record.path, record.second) in read]
    detections, boxes = number_boxes(found.frames, found.scores, records, len(names))
    nearest = match_boxes(boxes.frames, boxes.boxes, detections.frames, detections.boxes)
    frames, numbers = list[LabelledFrame](), iter(nearest.tolist())
    for record in records:
        shown = []
        for edges, labels, number in zip(record.boxes.tolist(), record.labels, numbers):
            present = [label for label in labels if label in classes]
            scores = None if number < 0 else detections.scores[number, classes]
            top = None if scores is None else classes[int(scores.argmax())]
            if present:
                shown.append(
                    LabelledBox(
                        edges=tuple(edges),
                        labels=tuple(names[label] for label in present),
                        predicted=NOT_FOUND if top is None else names[top],
                        score=1.0 if scores is None else float(scores.max()),
                        correct=top in present,
                    )
                )
        frames.append(LabelledFrame(record=record, boxes=tuple(shown)))
    return frames


def _hardest_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def key(row: dict[str, Any]) -> float:
        return 101.0 if row["average_precision"] is None else float(row["average_precision"])

    return sorted(rows, key=key)


def _picture(frame: LabelledFrame, start_seconds: float, decoder: Backend) -> str | None:
    """Return the key frame with its boxes as a data URL; None if it cannot be decoded."""
    record = frame.record
    try:
        with open_video(record.source, decoder) as video:
            index = frame_at(video.times, video.fps, record.second - start_seconds)
            if index is None:
                return None
            (pixels,) = video.frames([index])
    except DecodeError:
        return None
    boxes = [
        DrawnBox(edges=box.edges, captions=(str(number),), colour=GREEN if box.correct else RED)
        for number, box in enumerate(frame.boxes, 1)
    ]
    picture = Image.fromarray(draw_boxes(pixels, boxes, lines=LINES))
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return data_url(buffer.getvalue())
