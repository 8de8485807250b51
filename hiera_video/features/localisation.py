"""A feature store in the layout that toolkits for temporal action localisation read (ActionFormer, OpenTAD).

    features/<video>.npy      float32 [T, D], a window each, from the video's start at one stride
    annotations.json          ActivityNet's form: {"database": {video: {subset, duration, fps, frame, annotations}}}
    layout.json               what their configurations have to say of the features, key by key
    missing_files.txt         videos that are broken or shorter than a window, a name a line (OpenTAD's `block_list`)

Both place feature i at (i * stride + window / 2) / fps seconds, with stride and window in frames and the same for every
video: ActionFormer's `feat_stride` and `num_frames` (libs/datasets/thumos14.py), OpenTAD's `feature_stride` and
`offset_frames`, half the window (opentad/datasets/thumos.py). Windows of so many frames keep each video's own fps. Windows
of so many seconds are counted on a clock that is the same for all, whatever the videos' frame rates: `fps` is the clock's.
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
"""Ticks a second that are tried, until stride and half a window are whole numbers of them."""
SLACK = 1e-3
"""Ticks, and seconds, that count as nothing."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where feature i is: at (i * stride + window / 2) / fps seconds."""

    stride: int
    window: int
    fps: float | None
    """The same for all videos; None: each video's own."""

    def fps_of(self, video: VideoFeatures) -> float:
        """Frames (or ticks) a second of a video."""
        return self.fps or self.window / _window_seconds(video)


def write_localisation(
    store: FeatureStore,
    folder: str | Path,
    *,
    annotations: str | Path | None = None,
    subset: str = "validation",
) -> dict[str, Any]:
    """Write `store` to `folder` as above; returns what `layout.json` says.

    annotations: a file in ActivityNet's form whose subsets and segments are taken over, by the video's name without
    its suffix; videos that are not in it, and all where it is not given, are of `subset` and have no segments. Their
    seconds count from the video's first frame. A tail, shorter than a window, is left out. Raises `FeatureError`."""
    target, known = Path(folder), read_annotations(annotations) if annotations else {}
    grid = grid_of(store)
    names, clips = _names(store), store.clips()
    rows, numbers = (clips.column(key).to_numpy() for key in ("row", "clip"))
    (target / "features").mkdir(parents=True, exist_ok=True)
    database, missing, filled = dict[str, Any](), list[str](), 0
    for video in store:
        name = names[video.row]
        if not _has_whole_window(video):
            missing.append(name)
            continue
        first = int(np.searchsorted(rows, video.row))
        array, copies = on_the_grid(video, numbers[first : first + len(video.tail)])
        filled += copies
        content = io.BytesIO()
        np.save(content, array)
        write_file(target / "features" / f"{name}.npy", content.getvalue())
        facts = {"subset": subset, "annotations": [], **known.get(name, {})}
        fps, duration = grid.fps_of(video), float(video.end_seconds[-1] - video.start_seconds[0])
        database[name] = {**facts, "duration": duration, "fps": fps, "frame": round(duration * fps)}
    layout = {
        "actionformer": {
            "feat_stride": grid.stride,
            "num_frames": grid.window,
            "default_fps": grid.fps,
            "downsample_rate": 1,
            "input_dim": store.notes["names"][store.names[-1]][0],
            "file_prefix": None,
            "file_ext": ".npy",
        },
        "opentad": {
            "feature_stride": grid.stride,
            "sample_stride": 1,
            "offset_frames": grid.window // 2,
        },
        "videos": len(database),
        "missing": len(missing),
        "not_annotated": sorted(set(database) - set(known)) if annotations else None,
        "windows_filled_from_the_one_before": filled,
    }
    for file, content_of in (
        ("annotations.json", {"version": "1", "database": database}),
        ("layout.json", layout),
    ):
        write_file(
            target / file, (json.dumps(content_of, indent=1, ensure_ascii=False) + "\n").encode()
        )
    write_file(target / "missing_files.txt", "".join(f"{name}\n" for name in missing).encode())
    return layout


def grid_of(store: FeatureStore) -> Grid:
    """The stride and window of all videos. Raises `FeatureError` where they have no common one, or are not what a
    localisation toolkit reads."""
    identity = store.notes["identity"]
    if len(store.notes["names"][store.names[-1]]) != 1:
        raise FeatureError(
            f"features.pooling={identity.get('features.pooling')}: a window has to be one vector; extract with "
            "features.pooling=mean or max"
        )
    if identity["features.tail"] == "drop":
        raise FeatureError(
            "features.tail=drop: nobody knows how long the videos are; extract with features.tail=keep (tails are left "
            "out here)"
        )
    whole = [video for video in store if _has_whole_window(video)]
    if not whole:
        raise FeatureError(
            "no video is as long as a window; extract with a shorter features.window"
        )
    stride, window = identity["features.stride"], identity["features.window"]
    if identity["features.unit"] == "frames":
        if window is None:
            raise FeatureError("features.window is not set; extract with a number of frames")
        for video in whole:
            _require_one_length(video)
        return Grid(stride=int(stride or window), window=int(window), fps=None)
    if window is None:  # as long as a clip, which may depend on the video's frame rate
        lengths = [_window_seconds(video) for video in whole]
        window, place = max(lengths), int(np.argmin(lengths))
        if window - lengths[place] > 5 * SLACK:
            raise FeatureError(
                f"{whole[place].path}: has windows of {lengths[place]:.3f} s, others of {window:.3f} s; extract with "
                "features.window in seconds, or with features.unit=frames"
            )
    return _on_a_clock(stride or window, window)


def _on_a_clock(stride: float, window: float) -> Grid:
    for fps in CLOCKS:
        ticks, half = stride * fps, window * fps / 2
        if max(abs(ticks - round(ticks)), abs(half - round(half))) < SLACK:
            return Grid(stride=round(ticks), window=2 * round(half), fps=float(fps))
    raise FeatureError(
        f"windows of {window:g} s every {stride:g} s are no whole milliseconds; extract with rounder features.window and "
        "features.stride, or with features.unit=frames"
    )


def _has_whole_window(video: VideoFeatures) -> bool:
    return len(video.tail) > 0 and not video.tail[0]


def _window_seconds(video: VideoFeatures) -> float:
    return float(video.end_seconds[0] - video.start_seconds[0])


def _require_one_length(video: VideoFeatures) -> None:
    lengths = (video.end_seconds - video.start_seconds)[~video.tail]
    if lengths.max() - lengths.min() > 2 * SLACK:
        raise FeatureError(
            f"{video.path}: so many frames last from {lengths.min():.3f} to {lengths.max():.3f} s (a variable frame "
            "rate); extract with features.unit=seconds"
        )


def _names(store: FeatureStore) -> dict[int, str]:
    """The name of each video, by row: its file's, without the suffix."""
    names, rows = dict[int, str](), dict[str, int]()
    for row, path in zip(*(store.table().column(key).to_pylist() for key in ("row", "path"))):
        name = Path(path.rpartition("!")[2]).stem
        if rows.setdefault(name, row) != row:
            raise FeatureError(
                f"rows {rows[name]} and {row} are both called {name!r}, and a toolkit knows videos by name alone; extract "
                "them into stores of their own"
            )
        names[row] = name
    return names


def on_the_grid(
    video: VideoFeatures, numbers: NDArray[np.int64]
) -> tuple[NDArray[np.float32], int]:
    """float32 [T, D]: the whole windows by their `numbers`, gaps filled with the window before; and how many those were."""
    keep = ~video.tail
    numbers = numbers[keep]
    wanted = np.arange(numbers[-1] + 1)
    places = (
        np.searchsorted(numbers, wanted, side="right") - 1
    )  # number 0 is always there: it starts with the video
    values: NDArray[np.float32] = video.features.float().numpy()[keep]
    return values[places], len(wanted) - len(numbers)


def read_annotations(path: str | Path) -> Mapping[str, Any]:
    """`database` of a file in ActivityNet's form: entries by the video's name. Raises `FeatureError`."""
    why: Exception | None = None
    try:
        database = json.loads(Path(path).read_text(encoding="utf-8"))["database"]
        ok = all(isinstance(entry, dict) for entry in database.values())
    except OSError as error:
        raise FeatureError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        ok, why = False, error
    if not ok:
        raise FeatureError(
            f'{path}: is not in ActivityNet\'s form, {{"database": {{video: {{"subset": …, "annotations": [{{"label": …, '
            '"segment": [start, end]}]}}}'
        ) from why
    found: Mapping[str, Any] = database
    return found
