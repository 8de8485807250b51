"""Lists of boxes that a `Config` names, for action detection. Imports no torch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from hiera_video.config.schema import Config
from hiera_video.data.detection.box_classes import read_box_classes
from hiera_video.data.detection.key_frame import BoxManifest, KeyFrame
from hiera_video.data.detection.manifest import (
    BoxListOptions,
    read_box_list,
    read_scored_boxes,
)
from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.errors import ManifestError
from hiera_video.eval.class_names import quote_names

logger = logging.getLogger(__name__)
MAX_OPENED = 1000
"""Videos of a list up to which their headers are read before training; it takes a few seconds."""
TOLERANCE_SECONDS = 1.0
"""Headers may state an end that is a little too early."""


def read_key_frames(config: Config, split: str, source: str) -> BoxManifest:
    """Read the labelled boxes of a list, for training with those of `detect.train_boxes`.

    Raises:
        ManifestError: A list is missing or has a wrong line.
    """
    manifest = read_box_list(Path(source), box_list_options(config))
    check_seconds(manifest, config.detect.start_seconds)
    if split == "train" and config.detect.train_boxes is not None:
        detected = _read_detected(config, "train_boxes", config.detect.train_boxes, manifest)
        manifest = merge_boxes(manifest, detected)
    return manifest


def read_boxes_to_score(config: Config, truth: BoxManifest) -> BoxManifest:
    """Return the boxes that a test on labelled boxes scores.

    They are those of `detect.boxes` in the videos of `truth`, or else the labelled ones.

    Raises:
        ManifestError: The list is missing, has a wrong line, or no box in these videos.
    """
    if config.detect.boxes is None:
        return truth
    detected = _read_detected(config, "boxes", config.detect.boxes, truth)
    videos = {record.path for record in truth.records}
    kept = [record for record in detected.records if record.path in videos]
    if not kept:
        raise ManifestError(
            f"detect.boxes={config.detect.boxes}: has no box in a video of {truth.source}; name "
            "the boxes of its videos, or set detect.boxes=null to score the labelled boxes"
        )
    if len(kept) < len(detected.records):
        logger.info(
            "%s: %d of %d key frames are in videos of %s; the others are left out",
            detected.source, len(kept), len(detected.records), truth.source,
        )  # fmt: skip
    scored = replace(detected, records=_numbered(kept), class_names=truth.class_names)
    check_seconds(scored, config.detect.start_seconds)
    return scored


def check_seconds(manifest: BoxManifest, start_seconds: float) -> None:
    """Check the last key frame of each video against its header, in lists of few videos.

    What a header does not tell is found when the clip is read.

    Raises:
        ManifestError: Key frames are later than the end of their video.
    """
    from hiera_video.video.stated_end import stated_end  # PyAV, which --help does without

    last: dict[str, KeyFrame] = {}
    for record in manifest.records:
        if record.path not in last or record.second > last[record.path].second:
            last[record.path] = record
    if len(last) > MAX_OPENED:
        return
    beyond = []
    for record in last.values():
        end = stated_end(record.path)
        if end is not None and record.second - start_seconds > end + TOLERANCE_SECONDS:
            beyond.append(
                f"{record.where}: second {record.second:g} lies beyond the end of {record.path}, "
                f"{end + start_seconds:.2f}"
            )
    if beyond:
        more = f"; so do those of {len(beyond) - 1} other videos" if len(beyond) > 1 else ""
        raise ManifestError(
            f"{beyond[0]}{more}; correct the lines, or set detect.start_seconds to the second at "
            f"which the videos start (now {start_seconds:g})"
        )


def classes_that_count(config: Config, truth: BoxManifest) -> tuple[int, ...]:
    """Return the indices of the classes of `detect.eval_label_map`, or of all.

    Raises:
        ManifestError: It names a class that the list does not have.
    """
    names = truth.class_names or ()
    if config.detect.eval_label_map is None:
        return tuple(range(len(names)))
    path = Path(config.detect.eval_label_map)
    if not path.is_file():
        raise ManifestError(
            f"detect.eval_label_map={path}: no such file; name the label map of the classes that "
            "count, or leave it unset to count all"
        )
    chosen = read_box_classes(path).names
    if unknown := [name for name in chosen if name not in names]:
        raise ManifestError(
            f"detect.eval_label_map={path}: names classes that {truth.source} does not have: "
            f"{quote_names(unknown)}; correct the names"
        )
    return tuple(sorted(map(names.index, chosen)))


def require_same_classes(truth: Manifest, names: tuple[str, ...] | None, owner: str) -> None:
    """Raise `ManifestError` unless a list of boxes has the classes `names` of `owner`."""
    if names is not None and truth.class_names != names:
        mine, theirs = set(truth.class_names or ()), set(names)
        differing = sorted(mine ^ theirs)
        what = f"differ in {quote_names(differing)}" if differing else "are in another order"
        raise ManifestError(
            f"{truth.source}: its {len(truth.class_names or ())} classes and the {len(names)} of "
            f"{owner} {what}; set detect.label_map to the same classes for both"
        )


def merge_boxes(truth: BoxManifest, detected: BoxManifest) -> BoxManifest:
    """Add the boxes of a detector to the key frames of a labelled list, and their key frames."""
    extra = {(record.path, record.second): record for record in detected.records}
    records = []
    for record in truth.records:
        other = extra.pop((record.path, record.second), None)
        records.append(record if other is None else _add_boxes(record, other))
    return replace(truth, records=_numbered([*records, *extra.values()]))


def _add_boxes(record: KeyFrame, other: KeyFrame) -> KeyFrame:
    return replace(
        record,
        boxes=np.concatenate([record.boxes, other.boxes]),
        labels=(*record.labels, *other.labels),
        label=tuple(sorted({*as_tuple(record.label), *as_tuple(other.label)})),
        persons=(),
    )


def _numbered(records: list[KeyFrame]) -> tuple[KeyFrame, ...]:
    return tuple(replace(record, row=row) for row, record in enumerate(records))


def _read_detected(config: Config, key: str, source: str, truth: BoxManifest) -> BoxManifest:
    if not Path(source).is_file():
        raise ManifestError(
            f"detect.{key}={source}: no such file; name a list of a person detector's boxes, or "
            f"leave it unset"
        )
    detected = read_scored_boxes(
        Path(source), box_list_options(config), min_score=config.detect.min_score
    )
    if detected.class_names is not None:
        require_same_classes(detected, truth.class_names, truth.source)
    return detected


def box_list_options(config: Config) -> BoxListOptions:
    """Return how the lists of boxes of a configuration are read."""
    data, detect = config.data, config.detect
    return BoxListOptions(
        root=data.root,
        label_map=detect.label_map,
        excluded=detect.excluded,
        follow_links=data.follow_links,
        folders=data.decoder == "frames",
    )
