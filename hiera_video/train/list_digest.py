"""Digests of the lists that a run learns from, stored in each checkpoint's `meta.json`.

A run resumes on the lists that it started with: a renamed class would shift all labels silently.
Paths are taken relative to the folder that all videos lie in, so that the videos may be moved.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hiera_video.data.manifest.record import Manifest
from hiera_video.utils.text_files import count_of

PARTS = {
    "records": "other videos or segments",
    "labels": "other labels",
    "order": "another order of the videos",
    "class_names": "other class names",
}
"""Digests of a list, and what a difference in each means; the first difference is reported."""


def list_digest(manifest: Manifest, *, labels: bool = True) -> dict[str, Any]:
    """Return the number of videos of a list, their common folder, and digests of the parts.

    Args:
        manifest: The list.
        labels: Include labels and class names; pre-training uses neither.
    """
    paths = [record.path for record in manifest.records]
    root = os.path.commonpath([os.path.dirname(path) for path in _ends(paths)]) if paths else ""  # noqa: PTH120
    videos = [f"{record.path.removeprefix(root)}\0{record.part}" for record in manifest.records]
    digest: dict[str, Any] = {
        "videos": len(videos),
        "root": root,
        "records": _sha256(sorted(videos)),
        "order": _sha256(videos),
    }
    if labels:
        with_labels = (
            f"{video}\0{record.label_text}" for video, record in zip(videos, manifest.records)
        )
        digest["labels"] = _sha256(sorted(with_labels))
        digest["class_names"] = _sha256(manifest.class_names or ())
    return digest


def is_same_list(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return True if two digests are of the same videos, in any order.

    In another folder, videos of the same names count as moved if the former folder is gone.
    """
    moved = before["root"] != now["root"] and not os.path.isdir(before["root"])  # noqa: PTH112
    return before["records"] == now["records"] and (moved or before["root"] == now["root"])


def describe_changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    new_names: Sequence[str] | None = None,
) -> str:
    """Describe in words what differs between two digests of a list; empty if nothing does.

    Args:
        before: The digest in the checkpoint.
        now: The digest of the list as it is.
        names: Class names in the checkpoint.
        new_names: Class names of the list.
    """
    changes = []
    if before.get("videos") != now.get("videos"):
        changes.append(f"{before.get('videos')} → {count_of(now.get('videos', 0), 'video')}")
    else:
        parts = [part for part in PARTS if before.get(part) != now.get(part)]
        changes += [PARTS[part] for part in parts[:1] if part != "class_names"]
    if before.get("class_names") != now.get("class_names"):
        changes.append(_describe_names(names or (), new_names or ()))
    return ", ".join(changes)


def _describe_names(before: Sequence[str], now: Sequence[str]) -> str:
    if len(before) != len(now):
        return f"{len(before)} → {len(now)} class names"
    for index, (old, new) in enumerate(zip(before, now)):
        if old != new:
            return f"class {index} {old!r} → {new!r}"
    return PARTS["class_names"]


def _ends(paths: Sequence[str]) -> tuple[str, str]:
    """Return two paths that have no more in common than all of them."""
    return min(paths), max(paths)


def _sha256(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()
