"""Actions in boxes of a video: `hv.detect`, and `predict --boxes`."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hiera_video.data.detection.key_frame import BoxManifest, KeyFrame
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.eval.box_scores import score_boxes
from hiera_video.eval.class_names import output_names
from hiera_video.eval.detection_results import BoxScores
from hiera_video.runtime.distributed import World
from hiera_video.utils.checks import require
from hiera_video.video import open_video
from hiera_video.video.encode import write_video
from hiera_video.video.options import Backend
from hiera_video.workflows.detect import make_box_views
from hiera_video.workflows.load_run import LoadedRun, as_record, load

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hiera_video.config.schema import Config

EDGES = ("left", "top", "right", "bottom")
SHOWN_SECONDS = 0.5
"""A drawn box is shown from this long before its key frame to this long after, unless another key
frame is nearer."""
MIN_DRAWN, MOST_DRAWN = 0.3, 3
"""Probability from which on a drawn box names a class besides the most likely one, and the most
classes that it names."""
CHUNK = 32
"""Frames that are decoded at once for a drawn video."""


@dataclass(frozen=True, kw_only=True)
class DetectedActions:
    """A box of a video with its most likely actions, as returned by `detect`."""

    path: str
    """The video."""
    second: float
    """Time of the box."""
    box: tuple[float, float, float, float]
    """Left, top, right and bottom edge as shares of the frame."""
    top_classes: tuple[tuple[str, float], ...]
    """(label, probability) of the most likely classes. Each class has a probability of its own, so
    they do not sum to 1."""


def detect(
    run: LoadedRun | str | Path,
    video: str | Path,
    boxes: ArrayLike,
    seconds: ArrayLike,
    topk: int = 5,
) -> list[DetectedActions]:
    """Return the most likely actions in boxes of a video.

    Args:
        run: A run of `train.task=detect` from `load`, whose model may be on any device; or its
            folder, which is loaded on each call, onto the GPU if there is one.
        video: Video file, or folder of frames if the run was trained on those.
        boxes: [N, 4] left, top, right and bottom edges as shares of the frame, from 0 to 1.
        seconds: Time of each box since the start of the video, or one for all.
        topk: Number of classes; all if there are fewer.

    Returns:
        The actions of each box, in the order of `boxes`.

    Raises:
        ConfigError: `run` is not a run of action detection, or a box or a number of boxes is wrong.
        DecodeError: The video cannot be read.
        ManifestError: The video does not reach a second.
        CheckpointError: As for `load`.
    """
    edges = _check_boxes(boxes)
    times = _check_seconds(seconds, len(edges))
    if not isinstance(run, LoadedRun):
        run = load(run)
        run.model.to("cuda" if torch.cuda.is_available() else "cpu")
    require_boxes(run.config)
    path = as_record(video).path
    if not times:
        return []
    rows = dict[float, list[int]]()
    for index, second in enumerate(times):
        rows.setdefault(second, []).append(index)
    frames = [
        KeyFrame(
            path=path,
            label=None,
            row=number,
            second=second,
            video=path,
            boxes=edges[chosen],
            labels=((),) * len(chosen),
            where=f"seconds[{chosen[0]}]",
        )
        for number, (second, chosen) in enumerate(rows.items())
    ]
    found = score_key_frames(run, frames, start_seconds=0.0, workers=0)
    if found.unreadable:
        first = found.unreadable[0]
        raise DecodeError(first.message, reason=first.reason)
    actions = iter(top_actions(run, found, topk))
    order = (index for chosen in rows.values() for index in chosen)
    return [actions for _, actions in sorted(zip(order, actions), key=lambda pair: pair[0])]


def _check_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    try:
        edges = np.asarray(boxes, np.float32)
    except (ValueError, TypeError) as error:
        raise ConfigError("boxes: must be [N, 4] numbers: left, top, right, bottom") from error
    edges = edges.reshape(-1, 4) if edges.size == 0 else edges
    require(
        edges.ndim == 2 and edges.shape[1] == 4,
        f"boxes are {list(edges.shape)}; give [N, 4]: left, top, right, bottom",
    )
    for number, box in enumerate(edges.tolist()):
        for name, value in zip(EDGES, box):
            require(
                0 <= value <= 1,
                f"boxes[{number}]: {name}={value:g} lies outside [0, 1]; divide pixels by the "
                "frame's width and height",
            )
        require(
            box[0] <= box[2] and box[1] <= box[3],
            f"boxes[{number}]: right or bottom is below left or top; give the edges in the order "
            "left, top, right, bottom",
        )
    return edges


def _check_seconds(seconds: ArrayLike, boxes: int) -> list[float]:
    try:
        given = np.asarray(seconds, np.float64)
    except (ValueError, TypeError) as error:
        raise ConfigError("seconds: must be a number, or one for each box") from error
    times = [float(given)] * boxes if given.ndim == 0 else given.ravel().tolist()
    require(
        len(times) == boxes,
        f"seconds: {len(times)} for {boxes} boxes; give one for each box, or one for all",
    )
    for index, second in enumerate(times):
        require(
            0 <= second < math.inf, f"seconds[{index}]={second:g}: must be 0 or more, and finite"
        )
    return times


def score_key_frames(
    run: LoadedRun, frames: Sequence[KeyFrame], *, start_seconds: float, workers: int
) -> BoxScores:
    """Score the boxes of key frames as the test of a run does.

    Args:
        run: Its model computes in `test.precision`, on the device where it is.
        frames: Numbered from 0 by `row`.
        start_seconds: Second of the key frames at which their videos start.
        workers: As in `data.workers`.

    Raises:
        ConfigError: The run is not one of action detection.
        ManifestError: A video does not reach its key frame.
    """
    config = run.config
    require_boxes(config)
    manifest = BoxManifest(
        records=tuple(frames),
        class_names=run.class_names,
        class_ids=(),
        multi_label=True,
        source="boxes",
    )
    changed = replace(config, detect=replace(config.detect, start_seconds=start_seconds))
    views = make_box_views(changed, manifest)
    views.quarantine = replace(views.quarantine, file=None)
    crops = max(1, len(frames) * config.test.crops)
    device = next(run.model.parameters()).device
    return score_boxes(
        run.model,
        views,
        batch_size=min(config.test.batch_size, crops),
        workers=workers,
        world=World(0, 1, device),
        precision=config.test.precision,
    )


def require_boxes(config: Config) -> None:
    """Raise `ConfigError` unless a run is one of action detection."""
    require(
        config.train.task == "detect",
        f"{config.out_dir}: is a run of train.task={config.train.task}, which has no boxes; train "
        "one with train.task=detect",
    )


def top_actions(run: LoadedRun, found: BoxScores, topk: int) -> list[DetectedActions]:
    """Return the `topk` most likely classes of each box, in the order of the boxes."""
    actions = []
    for frame, rows in zip(found.frames, found.scores):
        names = output_names(run.class_names, rows.shape[1])
        for box, row in zip(frame.boxes.tolist(), rows.tolist()):
            order = sorted(range(len(row)), key=lambda index: -row[index])[:topk]
            actions.append(
                DetectedActions(
                    path=frame.path,
                    second=frame.second,
                    box=tuple(box),
                    top_classes=tuple((names[index], row[index]) for index in order),
                )
            )
    return actions


def write_boxes_video(
    path: str,
    actions: Sequence[DetectedActions],
    target: str,
    *,
    start_seconds: float = 0.0,
    decoder: Backend = "pyav",
) -> int:
    """Write a video with the boxes and their most likely actions drawn on its frames, no sound.

    Args:
        path: The video.
        actions: Its boxes.
        target: File to write.
        start_seconds: Second of the boxes at which the video starts.
        decoder: Reads the video.

    Returns:
        The number of frames.

    Raises:
        DecodeError: A frame cannot be read.
        ConfigError: The file cannot be written.
    """
    from hiera_video.viz.boxes import DrawnBox, draw_boxes

    colours = _colours(actions)
    by_second: dict[float, list[DrawnBox]] = {}
    for each in actions:
        drawn = DrawnBox(
            edges=each.box,
            captions=captions_of(each.top_classes),
            colour=colours[each.top_classes[0][0]],
        )
        by_second.setdefault(each.second - start_seconds, []).append(drawn)
    seconds = sorted(by_second)
    with open_video(path, decoder) as video:
        times = video.times

        def frames() -> Iterator[NDArray[np.uint8]]:
            for start in range(0, len(times), CHUNK):
                numbers = range(start, min(start + CHUNK, len(times)))
                for number, frame in zip(numbers, video.frames(numbers)):
                    second = shown_second(seconds, times[number])
                    yield draw_boxes(frame, [] if second is None else by_second[second])

        try:
            return write_video(target, frames(), fps=video.fps)
        except OSError as error:
            raise ConfigError(f"{target}: cannot be written ({error.strerror or error})") from error


def shown_second(seconds: Sequence[float], time: float) -> float | None:
    """Return the key frame whose boxes are shown at a time, or None.

    Args:
        seconds: Times of the key frames, ascending.
        time: Time of a frame.

    >>> [shown_second([1.0, 1.4], time) for time in (0.4, 0.5, 1.1, 1.3, 1.9, 2.0)]
    [None, 1.0, 1.0, 1.4, 1.4, None]
    """
    place = bisect_left(seconds, time)
    near = seconds[max(place - 1, 0) : place + 1]
    best = min(near, key=lambda second: abs(second - time), default=None)
    return best if best is not None and abs(best - time) <= SHOWN_SECONDS + 1e-6 else None


def captions_of(top_classes: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    """Return a line for each class that a drawn box names.

    >>> captions_of([("stand", 0.953), ("talk", 0.4), ("sit", 0.1)])
    ('stand 95 %', 'talk 40 %')
    """
    shown = [pair for pair in top_classes[1:MOST_DRAWN] if pair[1] >= MIN_DRAWN]
    return tuple(f"{label} {100 * value:.0f} %" for label, value in [*top_classes[:1], *shown])


def _colours(actions: Sequence[DetectedActions]) -> dict[str, tuple[int, int, int]]:
    """Return a colour for each class that is the most likely one of a box."""
    from hiera_video.viz.boxes import PALETTE

    names = sorted({each.top_classes[0][0] for each in actions})
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}
