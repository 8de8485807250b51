"""Segments of videos: found with a trained run, compared with labels, thresholds chosen.

windows ──model──▶ scores ──smooth──▶ curve ──thresholds──▶ segments ──▶ files, page, mAP
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hiera_video.data.background import BACKGROUND
from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.eval.class_names import output_names
from hiera_video.eval.segments.files import (
    VideoSegments,
    segments_csv,
    segments_eaf,
    segments_json,
    segments_via,
)
from hiera_video.eval.segments.find import ScoreCurve, find_segments
from hiera_video.eval.segments.settings import (
    WINDOWS_PER_STEP,
    SegmentSettings,
    read_settings,
)
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.checks import require
from hiera_video.utils.text_files import count_of, printable
from hiera_video.video import open_video
from hiera_video.video.arguments import describe
from hiera_video.video.options import ShardVideo
from hiera_video.video.reader import Frames
from hiera_video.viz.strips import shrink
from hiera_video.workflows.load_run import (
    LoadedRun,
    as_record,
    require_classes,
    require_dtype,
    to_loaded_run,
)
from hiera_video.workflows.predict import (
    DONE,
    NOTHING_READ,
    SOME_UNREADABLE,
    ModelSource,
    check_writable,
    run_of_checkpoint,
    write_file,
)
from hiera_video.workflows.sliding_window import window_scores

if TYPE_CHECKING:
    from hiera_video.viz.timeline import TimelineVideo

logger = logging.getLogger(__name__)
AT_ONCE = 8
"""Windows that are decoded together."""
STRIP_HEIGHT = 64
"""Height in pixels that a strip's frames are reduced to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoCurve:
    """The smoothed scores of a video, and what they were computed with."""

    record: Record
    curve: ScoreCurve
    window_seconds: float
    zero_seconds: float
    """Time of the first frame on the file's clock, which lists use."""


@dataclass(frozen=True, kw_only=True)
class NamedSegment:
    """A segment of a video in which a class was found, as returned by `predict_segments`."""

    label: str
    """Name of the class, or its index as text if it has no name."""
    start_seconds: float
    """Seconds since the first frame of the video."""
    end_seconds: float
    score: float
    """Mean of the class's smoothed score over the segment, between 0 and 1."""


def predict_segments(
    run: LoadedRun | str | Path,
    video: str | Path | Record | ShardVideo,
    *,
    window: float | None = None,
    step: float | None = None,
    smooth: float | None = None,
    threshold: float | None = None,
    min_seconds: float | None = None,
) -> list[NamedSegment]:
    """Return when each class happens in a video.

    Args:
        run: The folder of a run, whose chosen thresholds are used if there are any; or a run from
            `load`.
        video: Video file, folder of frames if the run was trained on those, a record of a list, or
            a video in a shard.
        window: Length of a window in seconds; by default that of the model's clip.
        step: Seconds from the start of a window to the next; by default a quarter of a window.
        smooth: Seconds over which scores are averaged; by default half a window.
        threshold: Score that a segment reaches; by default the chosen ones, else 0.5.
        min_seconds: Minimum length of a segment; by default half a window.

    Returns:
        The segments in order of time.

    Raises:
        DecodeError: The video cannot be read.
        ConfigError: An argument is out of range or of another kind, or the run has no classes.
        CheckpointError: As for `load`.
    """
    record, given = as_record(video), {"window": window, "step": step, "smooth": smooth}
    given |= {"threshold": threshold, "min_seconds": min_seconds}
    for name, value in given.items():
        _check_number(name, value)
    loaded = to_loaded_run(run)
    source = ModelSource(None if loaded is run else str(run_of_checkpoint(str(run)) or run))
    settings = settings_of(source).override(**given)
    require_dtype(loaded.model, loaded.config.test.precision)
    require(
        settings.window is not None or loaded.config.clip.sampling != "segments",
        "window=None: clips of a run with clip.sampling=segments have no fixed length; give window "
        "in seconds",
    )
    curve = score_video(loaded, record, settings)
    names = class_names(loaded, curve.curve)
    return [
        NamedSegment(
            label=names[segment.label],
            start_seconds=segment.start_seconds,
            end_seconds=segment.end_seconds,
            score=segment.score,
        )
        for segment in find_in_curve(loaded, curve, settings).segments
    ]


def _check_number(name: str, value: float | None) -> None:
    """Raise `ConfigError` unless an argument of `predict_segments` is in its range."""
    rule, least, most = "seconds, above 0", 0.0, math.inf
    if name in ("smooth", "min_seconds"):
        rule, least = "seconds, 0 or more", -math.ulp(0.0)
    elif name == "threshold":
        rule, most = "above 0 and at most 1", math.nextafter(1.0, 2.0)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    require(
        value is None or (is_number and least < value < most),
        f"{name}={describe(value)}: must be {rule}",
    )


def score_video(
    run: LoadedRun, video: str | Path | Record, settings: SegmentSettings
) -> VideoCurve:
    """Compute the smoothed scores of all classes along a video.

    Memory holds the frames of a few windows, and one row of scores for each window.

    Raises:
        DecodeError: The video cannot be read.
        ConfigError: The window is not set, and the run samples segments.
    """
    rows, spans, zero = list[Any](), list[tuple[float, float]](), 0.0
    for scores in window_scores(
        run,
        video,
        window=settings.window,
        step=settings.step,
        windows_per_step=WINDOWS_PER_STEP,
        at_once=AT_ONCE,
    ):
        rows.append(scores.probabilities.numpy())
        spans.append((scores.start_seconds, scores.end_seconds))
        zero = scores.zero_seconds
    window = spans[0][1] - spans[0][0]
    curve = ScoreCurve(
        centres=np.array(spans).mean(axis=1),
        scores=np.stack(rows).astype(np.float32),
        start_seconds=spans[0][0],
        end_seconds=spans[-1][1],
    )
    return VideoCurve(
        record=as_record(video),
        curve=curve.smoothed(settings.smoothing(window)),
        window_seconds=window,
        zero_seconds=zero,
    )


def find_in_curve(run: LoadedRun, video: VideoCurve, settings: SegmentSettings) -> VideoSegments:
    """Return the segments of a video whose scores are known."""
    names = class_names(run, video.curve)
    rule = settings.rule(names, window=video.window_seconds, multi_label=run.multi_label)
    return VideoSegments(
        path=video.record.path,
        duration_seconds=video.curve.end_seconds,
        segments=find_segments(video.curve, rule, skip=background_of(names)),
    )


def class_names(run: LoadedRun, curve: ScoreCurve) -> tuple[str, ...]:
    """Return the name of each class of a curve."""
    return output_names(run.class_names, curve.scores.shape[1])


def background_of(names: Sequence[str]) -> set[int]:
    """Return the index of the background, which gets no segments, if the model has that class."""
    return {label for label, name in enumerate(names) if name == BACKGROUND}


def settings_of(source: ModelSource) -> SegmentSettings:
    """Return the settings that were chosen for a run, or the defaults."""
    chosen = read_settings(Path(source.run)) if source.run else None
    if chosen is not None:
        logger.info("thresholds chosen for %s", source.run)
    return chosen or SegmentSettings()


def predict_segment_files(
    records: Sequence[Record],
    source: ModelSource,
    settings: SegmentSettings,
    files: Mapping[str, str],
) -> int:
    """Print the segments of videos, one line each, and write the files.

    Args:
        records: Videos.
        source: The model.
        settings: How segments are found.
        files: Path of each file to write, by its kind: csv, json, eaf, via or html.

    Returns:
        Exit code: 0; 3 if some videos are unreadable, each logged in one line; 2 if all are.

    Raises:
        ConfigError: A file cannot be written, or would hold several videos and cannot.
    """
    for path in files.values():
        check_writable(path)
    if "eaf" in files and len(records) > 1:
        raise ConfigError(
            f"output={files['eaf']}: an ELAN file is about one video, and there are "
            f"{len(records)}; give one video, or write .csv, .json or .via.json"
        )
    run, found, curves, unreadable = source.load(), list[VideoSegments](), [], 0
    require_classes(run)
    names: tuple[str, ...] = ()
    for record in records:
        try:
            video = score_video(run, record, settings)
        except DecodeError as error:
            unreadable += 1
            logger.error("error: %s", error)
            continue
        names = class_names(run, video.curve)
        found.append(find_in_curve(run, video, settings))
        _print_segments(found[-1], names)
        if "html" in files:
            curves.append(video)
    if found:
        _write_files(run, found, curves, names, files)
    if not unreadable:
        return DONE
    logger.error("%d of %s unreadable", unreadable, count_of(len(records), "video"))
    return SOME_UNREADABLE if found else NOTHING_READ


def _print_segments(video: VideoSegments, names: Sequence[str]) -> None:
    if not video.segments:
        print(printable(f"{video.path}  no segments"), flush=True)
    for segment in video.segments:
        times = f"{segment.start_seconds:z.2f}–{segment.end_seconds:.2f} s"
        line = f"{video.path}  {times}  {names[segment.label]} {segment.score:.1%}"
        print(printable(line), flush=True)


def _write_files(
    run: LoadedRun,
    found: Sequence[VideoSegments],
    curves: Sequence[VideoCurve],
    names: Sequence[str],
    files: Mapping[str, str],
) -> None:
    writers: dict[str, Callable[[], bytes]] = {
        "csv": lambda: segments_csv(found, names),
        "json": lambda: segments_json(found, names),
        "eaf": lambda: segments_eaf(found[0], names),
        "via": lambda: segments_via(found, names),
    }
    for kind, path in files.items():
        if kind in writers:
            write_file(path, writers[kind]())
    if "html" in files:
        from hiera_video.viz.timeline import timeline_page

        videos = [
            timeline_of(run, curve, {"segments": video.segments})
            for curve, video in zip(curves, found)
        ]
        title = "Segments" if len(videos) > 1 else f"Segments of {Path(found[0].path).name}"
        write_atomic(Path(files["html"]), timeline_page(title, videos, names))


def timeline_of(
    run: LoadedRun, video: VideoCurve, lanes: Mapping[str, Sequence[Any]]
) -> TimelineVideo:
    """Return a video's timeline.

    Args:
        run: Its decoder reads the film strip.
        video: The scores.
        lanes: Segments by the name of their lane.
    """
    from hiera_video.viz.timeline import TimelineBar, TimelineVideo

    def bar(segment: Any) -> TimelineBar:
        return TimelineBar(
            start_seconds=segment.start_seconds,
            end_seconds=segment.end_seconds,
            label=segment.label,
            score=getattr(segment, "score", None),
        )

    return TimelineVideo(
        title=video.record.path,
        duration_seconds=video.curve.end_seconds,
        lanes={name: [bar(segment) for segment in segments] for name, segments in lanes.items()},
        times=video.curve.centres,
        scores=video.curve.scores,
        frames=_strip_reader(run, video.record),
    )


def _strip_reader(run: LoadedRun, record: Record) -> Callable[[Sequence[float]], Frames | None]:
    def read(seconds: Sequence[float]) -> Frames | None:
        try:
            with open_video(record.source, run.config.data.backend) as video:
                times = [time - video.times[0] for time in video.times]
                indices = [max(bisect_right(times, at) - 1, 0) for at in seconds]
                frames = (video.frames([index])[0] for index in indices)
                return np.stack([shrink(frame, height=STRIP_HEIGHT) for frame in frames])
        except DecodeError:  # damaged where no window's clip has a frame
            return None

    return read
