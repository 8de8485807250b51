"""The `predict --boxes` command: actions in the boxes of a list."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiera_video.config.load import load_config, run_config_file
from hiera_video.config.schema import Config
from hiera_video.data.detection.key_frame import KeyFrame
from hiera_video.data.detection.manifest import read_scored_boxes
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.utils.text_files import count_of, csv_cell, encode_json, encode_text, printable
from hiera_video.workflows.detect_boxes import (
    DetectedActions,
    require_boxes,
    score_key_frames,
    top_actions,
    write_boxes_video,
)
from hiera_video.workflows.key_frames import box_list_options
from hiera_video.workflows.predict import (
    DONE,
    NOTHING_READ,
    SOME_UNREADABLE,
    ModelSource,
    check_writable,
    write_file,
)

logger = logging.getLogger(__name__)
COLUMNS = ("path", "second", "x1", "y1", "x2", "y2", "rank", "label", "probability")


def predict_boxes(
    listing: str,
    source: ModelSource,
    *,
    videos: str | None,
    start_seconds: float,
    topk: int,
    follow_links: bool,
    files: dict[str, str | None],
) -> int:
    """Print the most likely actions of each box of a list, and write the files.

    Args:
        listing: List of boxes.
        source: The run.
        videos: Folder of the videos, or a video, whose boxes alone are predicted; None: the folder
            of the list.
        start_seconds: Second of the list at which the videos start.
        topk: Number of classes.
        follow_links: Read videos behind symbolic links that leave the folder.
        files: Kind (`csv`, `json`, `mp4`) → path of the file, or None.

    Returns:
        Exit code: 0; 3 if some key frames are unreadable, each logged in one line; 2 if all are.

    Raises:
        ConfigError: The run is not one of action detection, or a file cannot be written.
        ManifestError: The list has an error.
    """
    for file in filter(None, files.values()):
        check_writable(file)
    config = load_config(run_config_file(str(source.run)), source.overrides)
    require_boxes(config)
    # the run's own data.root is that of its training
    given = any(text.startswith("data.root=") for text in source.overrides)
    root = config.data.root if given else None
    frames = read_boxes(listing, config, videos=videos, root=root, follow_links=follow_links)
    drawn = _video_to_draw(frames, files["mp4"])
    run = source.load()
    found = score_key_frames(run, frames, start_seconds=start_seconds, workers=1)
    for video in found.unreadable:
        logger.error("error: %s", video.message)
    actions = top_actions(run, found, topk)
    for each in actions:
        print(printable(_format(each)), flush=True)
    if (path := files["json"]) is not None:
        rows = [_row(each) for each in actions]
        write_file(path, encode_json(json.dumps(rows, indent=1, ensure_ascii=False)))
    if (path := files["csv"]) is not None:
        write_file(path, encode_text(_csv(actions)))
    if drawn is not None and found.frames:
        target = str(files["mp4"])
        try:
            write_boxes_video(
                drawn, actions, target, start_seconds=start_seconds, decoder=config.data.backend
            )
        except DecodeError as error:  # of a frame beyond the clips
            logger.error("error: %s; %s is not written", error, target)
            return SOME_UNREADABLE
    if not found.unreadable:
        return DONE
    total = count_of(len(frames), "key frame")
    logger.error("%d of %s unreadable", len(found.unreadable), total)
    return SOME_UNREADABLE if found.frames else NOTHING_READ


def read_boxes(
    listing: str, config: Config, *, videos: str | None, root: str | None, follow_links: bool
) -> tuple[KeyFrame, ...]:
    """Read the key frames of a list of boxes; scores and actions in it are ignored.

    Args:
        listing: List of boxes.
        config: How the videos are read.
        videos: As for `predict_boxes`.
        root: Folder that the names of the list start from; None: that of `videos`.
        follow_links: Read videos behind symbolic links that leave the folder.

    Raises:
        ConfigError: `videos` does not exist.
        ManifestError: The list has an error, or no box in the video.
    """
    folders = config.data.decoder == "frames"
    chosen = None if videos is None else Path(videos)
    if chosen is not None and not chosen.exists():
        raise ConfigError(f"{chosen}: no such file or folder")
    folder = Path(listing).parent if chosen is None else chosen
    # with frame folders a video is a folder, which has no folders
    is_video = chosen is not None and (
        not any(map(Path.is_dir, chosen.iterdir())) if chosen.is_dir() and folders
        else chosen.is_file()
    )  # fmt: skip
    options = replace(
        box_list_options(config),
        root=root or str(folder.parent if is_video else folder),
        follow_links=follow_links or config.data.follow_links,
        excluded=None,
        boxes_alone=True,
    )
    records = read_scored_boxes(Path(listing), options, min_score=0.0).records
    if is_video and chosen is not None:
        records = tuple(each for each in records if each.path == os.path.abspath(chosen))  # noqa: PTH100
        if not records:
            raise ConfigError(f"{listing}: has no box in {chosen}; name a video that it lists")
    return tuple(replace(record, row=row) for row, record in enumerate(records))


def _video_to_draw(frames: Sequence[KeyFrame], target: str | None) -> str | None:
    """Return the video of all boxes if it is to be drawn."""
    if target is None:
        return None
    paths = sorted({frame.path for frame in frames})
    if len(paths) > 1:
        raise ConfigError(
            f"output={target}: is one video, and the boxes are in {len(paths)}; name one of them, "
            f"such as {paths[0]}"
        )
    return paths[0]


def _format(actions: DetectedActions) -> str:
    classes = ", ".join(f"{label} {value:.1%}" for label, value in actions.top_classes)
    box = " ".join(f"{edge:.3f}" for edge in actions.box)
    return f"{actions.path}  {actions.second:.2f} s  box {box}  {classes}"


def _row(actions: DetectedActions) -> dict[str, Any]:
    return {
        "path": actions.path,
        "second": actions.second,
        "box": [round(edge, 6) for edge in actions.box],
        "answers": [
            {"label": label, "probability": round(value, 6)} for label, value in actions.top_classes
        ],
    }


def _csv(actions: Sequence[DetectedActions]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in actions:
        start = (csv_cell(each.path), each.second, *(round(edge, 6) for edge in each.box))
        for rank, (label, value) in enumerate(each.top_classes, 1):
            writer.writerow([*start, rank, csv_cell(label), round(value, 6)])
    return text.getvalue()
