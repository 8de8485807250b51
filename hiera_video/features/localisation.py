"""Export a feature store for toolkits for temporal action localisation (ActionFormer, OpenTAD).

    features/<video>.npy    float32 [T, D], one row per window, at one stride from the start
    annotations.json        ActivityNet's format: {"database": {video: {subset, duration, …}}}
    layout.json             values for the toolkits' configurations, by key
    missing_files.txt       videos without full windows (OpenTAD's `block_list`)

Both toolkits place feature i at (i * stride + window / 2) / fps seconds, with a stride and window
in frames that are the same for all videos: ActionFormer's `feat_stride` and `num_frames`
(libs/datasets/thumos14.py), OpenTAD's `feature_stride` and `offset_frames`, half the window
(opentad/datasets/thumos.py). Windows in frames keep each video's fps. Windows in seconds count on
one clock for all videos, whatever their frame rates; `fps` is the rate of that clock.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.errors import FeatureError
from hiera_video.features.shard_files import write_file
from hiera_video.features.store import FeatureStore, VideoFeatures

CLOCKS = (30, 25, 24, 60, 50, 100, 120, 1000)
"""Ticks per second to try until stride and half a window are whole numbers of ticks."""
SLACK = 1e-3
"""Tolerance in ticks, and in seconds."""


@dataclass(frozen=True, kw_only=True)
class FeatureGrid:
    """Positions of features in time: feature i is at (i * stride + window / 2) / fps seconds."""

    stride: int
    window: int
    fps: float | None
    """Frames (or ticks) per second of all videos; None: each video's own."""

    def fps_of(self, video: VideoFeatures) -> float:
        """Return the frames (or ticks) per second of a video."""
        return self.fps or self.window / _window_seconds(video)


def write_localisation(
    store: FeatureStore,
    folder: str | Path,
    *,
    annotations: str | Path | None = None,
    subset: str = "validation",
) -> dict[str, Any]:
    """Write the features and annotations for localisation toolkits to a folder.

    Tails, which are shorter than a window, are left out.

    Args:
        store: Pooled features of windows at one stride.
        folder: Output folder.
        annotations: File in ActivityNet's format; subsets and segments are copied from it by the
            video's name without suffix. Seconds count from the video's first frame.
        subset: Subset of the videos that are not in `annotations`; they have no segments.

    Returns:
        The content of `layout.json`.

    Raises:
        FeatureError: The windows do not fit on one grid, two videos have the same name, or a file
            cannot be read or written.
    """
    target, known = Path(folder), read_annotations(annotations) if annotations else {}
    grid = grid_of(store)
    names, clips = _names(store), store.clips()
    rows, numbers = (clips.column(key).to_numpy() for key in ("row", "clip"))
    database, missing, filled = dict[str, Any](), list[str](), 0
    for video in store:
        name = names[video.row]
        if not _has_full_window(video):
            missing.append(name)
            continue
        first = int(np.searchsorted(rows, video.row))
        array, copies = fill_gaps(video, numbers[first : first + len(video.tail)])
        filled += copies
        content = io.BytesIO()
        np.save(content, array)
        write_file(target / "features" / f"{name}.npy", content.getvalue())
        facts = {"subset": subset, "annotations": [], **known.get(name, {})}
        fps, duration = grid.fps_of(video), float(video.end_seconds[-1] - video.start_seconds[0])
        database[name] = {**facts, "duration": duration, "fps": fps, "frame": round(duration * fps)}
    layout = {
        **_toolkit_keys(grid, dim=store.metadata["names"][store.names[-1]][0]),
        "videos": len(database),
        "missing": len(missing),
        "not_annotated": sorted(set(database) - set(known)) if annotations else None,
        "windows_filled_from_the_one_before": filled,
    }
    _write_json(target / "annotations.json", {"version": "1", "database": database})
    _write_json(target / "layout.json", layout)
    write_file(target / "missing_files.txt", "".join(f"{name}\n" for name in missing).encode())
    return layout


def _toolkit_keys(grid: FeatureGrid, *, dim: int) -> dict[str, Any]:
    return {
        "actionformer": {
            "feat_stride": grid.stride,
            "num_frames": grid.window,
            "default_fps": grid.fps,
            "downsample_rate": 1,
            "input_dim": dim,
            "file_prefix": None,
            "file_ext": ".npy",
        },
        "opentad": {
            "feature_stride": grid.stride,
            "sample_stride": 1,
            "offset_frames": grid.window // 2,
        },
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_file(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def grid_of(store: FeatureStore) -> FeatureGrid:
    """Return the grid that the windows of all videos are on.

    Raises:
        FeatureError: There is no common grid, or features are not vectors of windows with a known
            length.
    """
    identity = store.metadata["identity"]
    if len(store.metadata["names"][store.names[-1]]) != 1:
        raise FeatureError(
            f"features.pooling={identity.get('features.pooling')}: the feature of a window must be "
            "one vector; extract with features.pooling=mean or max"
        )
    if identity["features.tail"] == "drop":
        raise FeatureError(
            "features.tail=drop: the lengths of the videos are unknown; extract with "
            "features.tail=keep (the export leaves tails out)"
        )
    videos = [video for video in store if _has_full_window(video)]
    if not videos:
        raise FeatureError(
            "no video is as long as a window; extract with a shorter features.window"
        )
    stride, window = identity["features.stride"], identity["features.window"]
    if identity["features.unit"] == "frames":
        if window is None:
            raise FeatureError("features.window is not set; extract with a number of frames")
        for video in videos:
            _check_constant_rate(video)
        return FeatureGrid(stride=int(stride or window), window=int(window), fps=None)
    if window is None:  # the length of a clip, which may depend on the frame rate
        lengths = [_window_seconds(video) for video in videos]
        window, shortest = max(lengths), int(np.argmin(lengths))
        if window - lengths[shortest] > 5 * SLACK:
            raise FeatureError(
                f"{videos[shortest].path}: has windows of {lengths[shortest]:.3f} s, others of "
                f"{window:.3f} s; extract with features.window in seconds, or with "
                "features.unit=frames"
            )
    return _grid_on_clock(stride or window, window)


def _grid_on_clock(stride: float, window: float) -> FeatureGrid:
    for fps in CLOCKS:
        ticks, half = stride * fps, window * fps / 2
        if max(abs(ticks - round(ticks)), abs(half - round(half))) < SLACK:
            return FeatureGrid(stride=round(ticks), window=2 * round(half), fps=float(fps))
    raise FeatureError(
        f"windows of {window:g} s every {stride:g} s are not whole milliseconds; extract with "
        "rounder features.window and features.stride, or with features.unit=frames"
    )


def _has_full_window(video: VideoFeatures) -> bool:
    return len(video.tail) > 0 and not video.tail[0]


def _window_seconds(video: VideoFeatures) -> float:
    return float(video.end_seconds[0] - video.start_seconds[0])


def _check_constant_rate(video: VideoFeatures) -> None:
    lengths = (video.end_seconds - video.start_seconds)[~video.tail]
    if lengths.max() - lengths.min() > 2 * SLACK:
        raise FeatureError(
            f"{video.path}: windows of equally many frames last from {lengths.min():.3f} to "
            f"{lengths.max():.3f} s (variable frame rate); extract with features.unit=seconds"
        )


def _names(store: FeatureStore) -> dict[int, str]:
    """Return the file name without suffix of each video, by row."""
    names, rows = dict[int, str](), dict[str, int]()
    for row, path in zip(*(store.table().column(key).to_pylist() for key in ("row", "path"))):
        name = Path(path.rpartition("!")[2]).stem
        if rows.setdefault(name, row) != row:
            raise FeatureError(
                f"rows {rows[name]} and {row} are both named {name!r}, and the toolkits identify "
                "videos by name; extract them into separate stores"
            )
        names[row] = name
    return names


def fill_gaps(video: VideoFeatures, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float32], int]:
    """Return the features of a video's full windows, with gaps filled by the window before.

    Args:
        video: The features.
        numbers: [n] number of each window, 0 for the one at the video's start.

    Returns:
        Features [T, D], and the number of rows that were filled.
    """
    keep = ~video.tail
    numbers = numbers[keep]
    grid = np.arange(numbers[-1] + 1)
    # number 0 is always there, because it starts with the video
    sources = np.searchsorted(numbers, grid, side="right") - 1
    values: NDArray[np.float32] = video.features.float().numpy()[keep]
    return values[sources], len(grid) - len(numbers)


def read_annotations(path: str | Path) -> Mapping[str, Any]:
    """Return the `database` of a file in ActivityNet's format: entries by the video's name.

    Raises:
        FeatureError: The file cannot be read, or has another format.
    """
    cause: Exception | None = None
    try:
        database = json.loads(Path(path).read_text(encoding="utf-8"))["database"]
        valid = all(isinstance(entry, dict) for entry in database.values())
    except OSError as error:
        raise FeatureError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        valid, cause = False, error
    if not valid:
        raise FeatureError(
            f"{path}: is not in ActivityNet's format, "
            '{"database": {video: {"subset": …, "annotations": '
            '[{"label": …, "segment": [start, end]}]}}}'
        ) from cause
    entries: Mapping[str, Any] = database
    return entries
