"""Lists of the readable videos of each split."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiera_video.data.manifest.list_file import format_line, refuse_to_overwrite
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.manifest.tar_index import INDEX_SUFFIX, subset_index
from hiera_video.data.prepare.scan import ScannedVideo
from hiera_video.utils.atomic_files import write_atomic


@dataclass(frozen=True, kw_only=True)
class CleanList:
    """A list to be written; everything that can be wrong with it is checked before the scan."""

    path: Path
    root: str
    """Folder that its paths start from: `data.root`."""
    lines: tuple[str, ...] | None
    """The line of every record; None for tar shards, which get an index instead."""
    source: str
    """List, folder or index that the records are from."""

    def write(self, scanned: Sequence[ScannedVideo]) -> None:
        """Write the list with only the videos that are readable."""
        rows = [video.row for video in scanned if video.reason is None]
        if self.lines is None:
            write_atomic(self.path, subset_index(self.source, rows))
        else:
            write_atomic(self.path, "".join(self.lines[row] for row in rows))


def plan_clean_lists(
    folder: Path, manifests: Mapping[str, Manifest], *, written_before: Sequence[str]
) -> dict[str, CleanList]:
    """Return the clean list of each split, to be written into `folder`.

    Args:
        folder: Output folder.
        manifests: Splits, by name.
        written_before: Names of lists in `folder` that earlier checks wrote.

    Raises:
        ConfigError: A list exists and is one of the manifests' sources, or no check has written it.
    """
    sources = [manifest.source for manifest in manifests.values()]
    paths = [r.path for m in manifests.values() if not m.in_shards for r in m.records]
    root = common_root(paths)
    planned = {}
    for split, manifest in manifests.items():
        path = folder / f"{split}{INDEX_SUFFIX if manifest.in_shards else '.csv'}"
        refuse_to_overwrite(path, sources, written_by_us=path.name in written_before)
        if manifest.in_shards:
            shard = manifest.records[0].path.rpartition("!")[0]
            list_root, lines = shard.rpartition("/")[0], None
        else:
            list_root = root
            lines = tuple(format_line(r, os.path.relpath(r.path, root)) for r in manifest.records)
        planned[split] = CleanList(path=path, root=list_root, lines=lines, source=manifest.source)
    return planned


def common_root(paths: Sequence[str]) -> str:
    """Return the folder that contains all absolute `paths`, and their targets if links leave it."""
    if not paths:
        return ""
    root = os.path.commonpath({os.path.dirname(path) for path in paths})  # noqa: PTH120
    folders = {os.path.realpath(os.path.dirname(path)) for path in paths}  # noqa: PTH120
    targets = folders | {os.path.dirname(os.path.realpath(path)) for path in paths}  # noqa: PTH120
    real = os.path.realpath(root)
    if os.path.commonpath([real, *targets]) == real:
        return root
    return os.path.commonpath([root, *targets])
