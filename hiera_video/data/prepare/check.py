"""Check a data set: read every video, then write clean lists, `check.json` and `report.html`."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hiera_video.data.config import DataConfig
from hiera_video.data.loading.quarantine import FILE_NAME, QuarantinePolicy
from hiera_video.data.manifest.class_names import find_class_names, write_class_names
from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.data.prepare.class_order import check_class_order, unify_classes
from hiera_video.data.prepare.clean_list import plan_clean_lists
from hiera_video.data.prepare.scan import ScannedVideo, scan
from hiera_video.data.sampling import ClipConfig, clip_span
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.pages import render_page
from hiera_video.utils.text_files import count_of, read_json
from hiera_video.video.packet_index import write_index

logger = logging.getLogger(__name__)

RESULTS = "check.json"
HISTOGRAM_ROWS = 30


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of a data check."""

    data: DataConfig
    """Decoder, workers and deadline."""
    clip: ClipConfig
    """Videos shorter than this clip are counted as short."""
    quick: bool = False
    """Decode a few frames of each video instead of all."""
    index_packets: bool = False
    """Write a packet index."""
    classes: str | None = None
    """Reference for the class order (see `check_class_order`)."""


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """Counts of one split, as in `check.json`."""

    source: str
    videos: int
    readable: int
    reasons: dict[str, int]
    """Unreadable videos by reason, most frequent first."""
    broken: list[dict[str, Any]]
    """Row, path, reason and message of each unreadable video."""
    short: list[dict[str, Any]]
    """Row, path and number of frames of each readable video that is shorter than a clip."""
    fps: dict[str, int]
    seconds: dict[str, int]
    sizes: dict[str, int]
    labels: dict[str, int]
    without_label: int
    classes_without_video: list[str]


@dataclass(frozen=True, kw_only=True)
class DuplicateFiles:
    """Files with the same bytes, as in `check.json`."""

    splits: list[str]
    files: list[str]
    """`split: path` of each."""


@dataclass(frozen=True, kw_only=True)
class CheckResults:
    """Content of `check.json`."""

    splits: dict[str, SplitSummary]
    overlap: list[DuplicateFiles]
    class_order: list[str] | None
    """Differences from the reference order; None: not checked."""
    class_order_of: str
    """The reference, or why there is none."""
    clean_lists: list[str]
    """Names of the lists in the folder that this and earlier checks wrote."""

    @property
    def num_videos(self) -> int:
        return sum(split.videos for split in self.splits.values())

    @property
    def num_unreadable(self) -> int:
        return sum(len(split.broken) for split in self.splits.values())


def check_splits(
    manifests: Mapping[str, Manifest], out: Path, options: CheckOptions
) -> CheckResults:
    """Read all videos of a data set and write what was found into `out`.

    Writes `check.json`, `report.html`, a list of each split's readable videos, `labels.txt` unless
    `out` has one and, if requested, `packets.index`.

    Args:
        manifests: Splits, by name.
        out: Output folder.
        options: How the videos are read and what is checked.

    Raises:
        ManifestError: The splits have different classes.
        ConfigError: A list of the user's would be overwritten.
    """
    aligned, names = unify_classes(manifests, out / RESULTS)
    class_order, class_order_of = check_class_order(names, options.classes)
    before = _lists_written_before(out)
    clean_lists = plan_clean_lists(out, aligned, written_before=before)
    out.mkdir(parents=True, exist_ok=True)
    scanned, splits = {}, {}
    for split, manifest in manifests.items():
        scanned[split] = _scan_split(split, manifest, out, options)
        splits[split] = summarise(scanned[split], manifest, options.clip)
        _log_summary(split, splits[split])
    if options.index_packets:
        index, count = write_packet_index(out, scanned)
        logger.info("data.index=%s: packets of %s", index, count_of(count, "video"))
    if names is not None and find_class_names(out / RESULTS)[0] is None:
        write_class_names(out, names)
    for split, clean_list in clean_lists.items():
        clean_list.write(scanned[split])
        logger.info("%s: clean list: %s with data.root=%s", split, clean_list.path, clean_list.root)
    results = CheckResults(
        splits=splits,
        overlap=find_duplicates(scanned),
        class_order=class_order,
        class_order_of=class_order_of,
        clean_lists=sorted({*before, *(planned.path.name for planned in clean_lists.values())}),
    )
    write_atomic(out / RESULTS, json.dumps(asdict(results), indent=1, ensure_ascii=False))
    _write_report(out / "report.html", results, options)
    _log_findings(results, out / "report.html")
    return results


def summarise(
    scanned: Sequence[ScannedVideo], manifest: Manifest, clip: ClipConfig
) -> SplitSummary:
    """Count what the scan of a split found; videos with fewer frames than `clip` are short."""
    readable = [video for video in scanned if video.reason is None]
    unreadable = [video for video in scanned if video.reason is not None]
    short = [video for video in readable if video.num_frames < int(clip_span(clip, video.fps))]
    labels = Counter(label for record in manifest.records for label in as_tuple(record.label))
    names = manifest.class_names or ()
    return SplitSummary(
        source=manifest.source,
        videos=len(scanned),
        readable=len(readable),
        reasons=dict(Counter(str(video.reason) for video in unreadable).most_common()),
        broken=[
            {"row": v.row, "path": v.path, "reason": v.reason, "message": v.message}
            for v in unreadable
        ],
        short=[{"row": v.row, "path": v.path, "num_frames": v.num_frames} for v in short],
        fps=histogram([round(video.fps, 2) for video in readable]),
        seconds=histogram([round(video.seconds) for video in readable]),
        sizes=histogram([f"{video.width}×{video.height}" for video in readable]),
        labels={
            names[label] if label < len(names) else str(label): labels[label]
            for label in sorted(labels)
        },
        without_label=sum(record.label is None for record in manifest.records),
        classes_without_video=[name for index, name in enumerate(names) if index not in labels],
    )


def histogram(
    values: Sequence[float] | Sequence[str], max_rows: int = HISTOGRAM_ROWS
) -> dict[str, int]:
    """Return the count of each value, ascending; beyond `max_rows`, the rarest are `other`.

    >>> histogram([5, 1, 1, 2, 2], max_rows=2)
    {'1': 2, '2': 2, 'other': 1}
    """
    counts: Counter[Any] = Counter(values)
    kept = dict(counts.most_common(max_rows))
    rest = len(values) - sum(kept.values())
    rows = {
        f"{value:g}" if isinstance(value, float) else str(value): kept[value]
        for value in sorted(kept)
    }
    return rows | ({"other": rest} if rest else {})


def find_duplicates(splits: Mapping[str, Sequence[ScannedVideo]]) -> list[DuplicateFiles]:
    """Return the groups of files with the same bytes; groups across splits come first."""
    files_of: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, scanned in splits.items():
        # a file may have several records
        files = {(video.path, video.digest) for video in scanned if video.digest is not None}
        for path, digest in sorted(files):
            files_of[digest].append((split, path))
    groups = [
        DuplicateFiles(
            splits=sorted({split for split, _ in files}),
            files=[f"{split}: {path}" for split, path in files],
        )
        for files in files_of.values()
        if len(files) > 1
    ]
    return sorted(groups, key=lambda group: (-len(group.splits), group.files))


def write_packet_index(
    folder: Path, splits: Mapping[str, Sequence[ScannedVideo]]
) -> tuple[Path, int]:
    """Write one packet index for the videos of all splits.

    Returns:
        Path of the index, and the number of videos in it.
    """
    path = folder / "packets.index"
    videos = (video for scanned in splits.values() for video in scanned)
    rows = ((video.path, *video.packets) for video in videos if video.packets is not None)
    return path, write_index(path, rows)


def _lists_written_before(folder: Path) -> list[str]:
    results = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else {}
    lists = results.get("clean_lists") if isinstance(results, dict) else None
    return [str(name) for name in lists] if isinstance(lists, list) else []


def _scan_split(
    split: str, manifest: Manifest, out: Path, options: CheckOptions
) -> list[ScannedVideo]:
    videos = scan(
        manifest,
        decoder=options.data.backend,
        workers=options.data.workers,
        quarantine=QuarantinePolicy(
            deadline_seconds=options.data.deadline_seconds, file=str(out / FILE_NAME)
        ),
        quick=options.quick,
        index_packets=options.index_packets,
    )
    return list(tqdm(videos, total=len(manifest.records), unit="video", desc=split))


def _log_summary(split: str, summary: SplitSummary) -> None:
    found = f"{split}: {summary.readable} of {count_of(summary.videos, 'video')} can be read"
    if summary.broken:
        reasons = ", ".join(f"{reason} {count}" for reason, count in summary.reasons.items())
        found += f"; {reasons}; first: {summary.broken[0]['message']}"
    logger.info("%s", found)


def _write_report(path: Path, results: CheckResults, options: CheckOptions) -> None:
    """Write one HTML page that needs no network."""
    sources = ", ".join(split.source for split in results.splits.values())
    content = render_page(
        "hiera_video.data.prepare",
        "check.html",
        title=f"Check of {sources}",
        depth="Eight frames of each video were" if options.quick else "Every frame was",
        decoder=options.data.decoder,
        results=results,
    )
    write_atomic(path, content)


def _log_findings(results: CheckResults, report: Path) -> None:
    order = "not checked"
    if results.class_order is not None:
        differences = count_of(len(results.class_order), "difference")
        order = f"{differences} from {results.class_order_of}"
    logger.info(
        "files with the same bytes: %s, %d across splits; class order: %s",
        count_of(len(results.overlap), "group"),
        sum(len(group.splits) > 1 for group in results.overlap),
        order,
    )
    logger.info("report: %s", report)
