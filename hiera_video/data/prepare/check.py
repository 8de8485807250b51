"""Reads every video of a list and says what it found: broken, short, doubled, rates, durations, labels.

`scan` does the reading, in workers with a deadline; what is made of it (`summary`, `overlap`, `class_order`) is
arithmetic on its answers.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiera_video.data.dataset import record_frame_range
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy
from hiera_video.data.manifest.class_names import find_class_names, share_class_names
from hiera_video.data.manifest.list_file import format_line, refuse_to_overwrite
from hiera_video.data.manifest.record import Manifest, Record, as_tuple
from hiera_video.data.manifest.tar_index import INDEX_SUFFIX, subset_index
from hiera_video.data.sampling import ClipConfig, clip_span
from hiera_video.errors import DecodeError
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.remote_files import fetch, is_url
from hiera_video.utils.text_files import read_json, read_text
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.video.packet_index import Stamp, write_index
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits

logger = logging.getLogger(__name__)
CHUNK = 64
"""Frames decoded at once at most: bounds the memory, not the check."""
QUICK_FRAMES = 8
RESULTS = "check.json"
CLEAN_LISTS = "clean_lists"
"""Key of the results: names of the lists in that folder that were written by a check, this one or one before it."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One video. `reason` and `message` where it is broken, the other facts where it is not."""

    row: int
    path: str
    reason: str | None = None
    message: str | None = None
    num_frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    digest: str | None = None
    """Of the file's bytes; None for a folder of frames and for a file that cannot be read at all."""
    packets: tuple[Stamp, bytes] | None = None
    """For the index of packets, where one is wanted and the video is of use there."""


@dataclass(frozen=True)
class Examine:
    """Checks a record: all its frames are decoded, or a few with `quick`."""

    records: tuple[Record, ...]
    decoder: Backend
    quick: bool
    index: bool = False
    """Whether packets are to be written down."""

    def __call__(self, index: int, opening: OnOpen) -> Checked:
        record = self.records[index]
        digest = packets = None
        try:
            opening(record.path)
            with open_video(record.source, self.decoder) as video:
                digest = digest_of(record)
                count = len(video.times)
                record_frame_range(
                    video, record
                )  # an error where training and tests would find no frame
                info = video.info
                if isinstance(video, PyAVReader) and not self.quick:
                    for _ in (
                        video.iter_frames()
                    ):  # in one pass: a part by itself is decoded from a key frame on, or from 0
                        pass
                else:
                    chunk = max(1, min(CHUNK, Limits().max_bytes // (info.width * info.height * 3)))
                    wanted = sorted(
                        {i * (count - 1) // (QUICK_FRAMES - 1) for i in range(QUICK_FRAMES)}
                    )
                    wanted = wanted if self.quick else list(range(count))
                    for start in range(0, len(wanted), chunk):
                        video.frames(wanted[start : start + chunk])
                if self.index and isinstance(video, PyAVReader):
                    packets = video.packet_index_row()
        except DecodeError as error:
            return Checked(
                row=record.row,
                path=record.path,
                reason=error.reason,
                message=str(error),
                digest=digest,
            )
        return Checked(
            row=record.row,
            path=record.path,
            num_frames=info.num_frames,
            fps=info.fps,
            seconds=info.duration_seconds,
            width=info.width,
            height=info.height,
            digest=digest,
            packets=packets,
        )


def scan(
    manifest: Manifest,
    *,
    decoder: Backend,
    workers: int,
    quarantine: QuarantinePolicy,
    quick: bool = False,
    index: bool = False,
) -> Iterator[Checked]:
    """Every record's answer, in order, as it comes; `index`: with what an index of packets needs."""
    examine, rows = Examine(manifest.records, decoder, quick, index), range(len(manifest.records))
    return map_videos(examine, rows, workers=workers, quarantine=quarantine)


def digest_of(record: Record) -> str | None:
    """BLAKE2 of a video's bytes, in a file or in a shard; None for a folder of frames."""
    stored, digest = record.shard_video, hashlib.blake2b(digest_size=16)
    if stored is not None and is_url(stored.shard):
        digest.update(fetch(stored.shard, stored.offset, stored.offset + stored.size))
        return digest.hexdigest()
    if stored is None and not os.path.isfile(record.path):  # noqa: PTH113 (a hot path)
        return None
    path, left = (record.path, math.inf) if stored is None else (stored.shard, stored.size)
    with open(path, "rb") as file:  # noqa: PTH123 (a hot path)
        file.seek(0 if stored is None else stored.offset)
        while left > 0 and (chunk := file.read(int(min(left, 1 << 20)))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def summary(found: Sequence[Checked], manifest: Manifest, clip: ClipConfig) -> dict[str, Any]:
    """Counts of one split, as the report and `check.json` show them."""
    good = [item for item in found if item.reason is None]
    short = [item for item in good if item.num_frames < int(clip_span(clip, item.fps))]
    labels = Counter(label for record in manifest.records for label in as_tuple(record.label))
    names = manifest.class_names
    return {
        "source": manifest.source,
        "videos": len(found),
        "readable": len(good),
        "reasons": dict(
            Counter(item.reason for item in found if item.reason is not None).most_common()
        ),
        "broken": [
            {"row": item.row, "path": item.path, "reason": item.reason, "message": item.message}
            for item in found
            if item.reason is not None
        ],
        "short": [
            {"row": item.row, "path": item.path, "num_frames": item.num_frames} for item in short
        ],
        "fps": histogram([round(item.fps, 2) for item in good]),
        "seconds": histogram([round(item.seconds) for item in good]),
        "sizes": histogram([f"{item.width}×{item.height}" for item in good]),
        "labels": {
            names[label] if names and label < len(names) else str(label): labels[label]
            for label in sorted(labels)
        },
        "without_label": sum(record.label is None for record in manifest.records),
        "classes_without_video": [
            name for index, name in enumerate(names or ()) if index not in labels
        ],
    }


def histogram(values: Sequence[float] | Sequence[str], most: int = 30) -> dict[str, int]:
    """How often each value occurs, ascending; the rarest together as `other` where there are too many."""
    counts: Counter[Any] = Counter(values)
    kept = dict(counts.most_common(most))
    rest = len(values) - sum(kept.values())
    shown = {
        f"{value:g}" if isinstance(value, float) else str(value): kept[value]
        for value in sorted(kept)
    }
    return shown | ({"other": rest} if rest else {})


def overlap(splits: Mapping[str, Sequence[Checked]]) -> list[dict[str, Any]]:
    """Groups of files with the same bytes, within a split and across; those across come first."""
    by_digest: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, found in splits.items():
        for path, digest in sorted(
            {(item.path, item.digest) for item in found if item.digest is not None}
        ):
            by_digest[digest].append((split, path))
    groups = [
        {
            "splits": sorted({split for split, _ in files}),
            "files": [f"{split}: {path}" for split, path in files],
        }
        for files in by_digest.values()
        if len(files) > 1
    ]
    return sorted(groups, key=lambda group: (-len(group["splits"]), group["files"]))


def in_one_order(
    manifests: Mapping[str, Manifest], folder: Path
) -> tuple[dict[str, Manifest], tuple[str, ...] | None]:
    """The splits with labels that mean the same in all, for lists that share the labels file of `folder`, and the names in
    their order: those in `folder` already, else the first split's that has any, else those of the class folders. An index of
    shards carries its own names, and stays as it is. `ManifestError` where a split has a class that the names lack."""
    lists = {split: manifest for split, manifest in manifests.items() if not _in_shards(manifest)}
    names, file = find_class_names(folder / RESULTS) if lists else (None, None)
    names_from = str(file)
    if names is None:
        first = next(
            (manifest for manifest in manifests.values() if manifest.class_names is not None), None
        )
        if first is not None:
            names, names_from = first.class_names, first.source
        else:
            names = names_in_order(
                [record for manifest in manifests.values() for record in manifest.records]
            )
    if names is not None:
        lists = {
            split: share_class_names(manifest, names, names_from)
            for split, manifest in lists.items()
        }
    return {**manifests, **lists}, names


def names_in_order(records: Sequence[Record]) -> tuple[str, ...] | None:
    """Names of the class folders, by index, where each label has one of its own."""
    folders: dict[int, set[str]] = defaultdict(set)
    for record in records:
        for label in as_tuple(record.label):
            folders[label].add(Path(record.path).parent.name)
    names = [next(iter(folders[label])) for label in sorted(folders) if len(folders[label]) == 1]
    if (
        len(names) < len(folders)
        or len(set(names)) < len(names)
        or sorted(folders) != list(range(len(folders)))
    ):
        return None
    return tuple(names) or None


def class_order(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """What differs from the known order, in words; empty where index by index the classes are the same."""
    ours, theirs = [_plain(name) for name in names], [_plain(name) for name in known]
    if len(ours) != len(theirs):
        return [f"{len(ours)} classes here, {len(theirs)} in the known list"]
    place = {name: index for index, name in enumerate(theirs)}
    return [
        f"class {index} is '{names[index]}' here, '{known[index]}' in the known list"
        + (f" (which has it at {place[name]})" if name in place else " (which does not have it)")
        for index, name in enumerate(ours)
        if name != theirs[index]
    ]


def _plain(name: str) -> str:
    """Releases write `petting animal (not cat)` and `petting_animal_(not_cat)`."""
    return " ".join(name.replace("_", " ").lower().split())


@dataclass(frozen=True, kw_only=True)
class CleanList:
    """The manifest that is to be written of a split; all that can go wrong with it is found out before the check."""

    path: Path
    root: str
    """What its paths start from: its `data.root`."""
    lines: tuple[str, ...] | None
    """Of every record; None: the split lies in shards, and their index is written."""


def plan_clean(folder: Path, manifests: Mapping[str, Manifest]) -> dict[str, CleanList]:
    """Where the clean manifest of each split goes. `ConfigError` where that is a list that is read or that no check has
    written."""
    before = lists_written(folder)
    sources = [manifest.source for manifest in manifests.values()]
    root = common_root(
        [
            r.path
            for manifest in manifests.values()
            if not _in_shards(manifest)
            for r in manifest.records
        ]
    )
    planned = {}
    for split, manifest in manifests.items():
        stored = _in_shards(manifest)
        path = folder / f"{split}{INDEX_SUFFIX if stored else '.csv'}"
        refuse_to_overwrite(path, sources, written_by_us=path.name in before)
        if stored:
            shards = manifest.records[0].path.rpartition("!")[0].rpartition("/")[0]
            planned[split] = CleanList(path=path, root=shards, lines=None)
        else:
            lines = tuple(
                format_line(record, os.path.relpath(record.path, root))
                for record in manifest.records
            )
            planned[split] = CleanList(path=path, root=root, lines=lines)
    return planned


def lists_written(folder: Path) -> list[str]:
    """Names of the lists in `folder` that checks have written there."""
    results = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else {}
    written = results.get(CLEAN_LISTS, []) if isinstance(results, dict) else []
    return [str(name) for name in written]


def common_root(paths: Sequence[str]) -> str:
    """The folder that all of the absolute `paths` lie in, and with them, where links lead out of it, what they lead to."""
    if not paths:
        return ""
    root = os.path.commonpath({os.path.dirname(path) for path in paths})  # noqa: PTH120
    folders = {os.path.realpath(os.path.dirname(path)) for path in paths}  # noqa: PTH120
    targets = folders | {os.path.dirname(os.path.realpath(path)) for path in paths}  # noqa: PTH120
    real = os.path.realpath(root)
    return (
        root
        if os.path.commonpath([real, *targets]) == real
        else os.path.commonpath([root, *targets])
    )


def _in_shards(manifest: Manifest) -> bool:
    return all(record.shard_video is not None for record in manifest.records)


def index_packets(folder: Path, splits: Mapping[str, Sequence[Checked]]) -> tuple[Path, int]:
    """Write the index of packets of all splits; its path, and how many videos it helps."""
    path = folder / "packets.index"
    rows = (
        (item.path, *item.packets)
        for found in splits.values()
        for item in found
        if item.packets is not None
    )
    return path, write_index(path, rows)


def write_lists(
    folder: Path,
    clean: Mapping[str, CleanList],
    manifests: Mapping[str, Manifest],
    found: Mapping[str, Sequence[Checked]],
    names: Sequence[str] | None,
) -> list[str]:
    """Write each split's clean manifest, and the labels file that they share unless `folder` has one; names of all lists
    there that checks have written."""
    written = {*lists_written(folder), *(planned.path.name for planned in clean.values())}
    if names is not None and find_class_names(folder / RESULTS)[0] is None:
        write_atomic(folder / "labels.txt", "".join(f"{name}\n" for name in names))
    for split, planned in clean.items():
        write_clean(planned, manifests[split].source, found[split])
        logger.info("%s: clean list: %s with data.root=%s", split, planned.path, planned.root)
    return sorted(written)


def write_clean(planned: CleanList, source: str, found: Sequence[Checked]) -> None:
    """Write the manifest of the readable videos of the list, folder or index `source`."""
    readable = [item.row for item in found if item.reason is None]
    if planned.lines is None:
        write_atomic(planned.path, subset_index(source, readable))
    else:
        write_atomic(planned.path, "".join(planned.lines[row] for row in readable))


def write_page(path: Path, facts: Mapping[str, Any]) -> None:
    """One HTML page that needs no network."""
    import jinja2

    page = jinja2.Environment(autoescape=True).from_string(
        read_text(Path(__file__).with_suffix(".html"))
    )
    write_atomic(path, page.render(**facts))
