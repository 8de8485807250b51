"""Copies of a data set that decode fast: smaller, with a key frame every 32 frames, H.264.

    reencode(read_manifest("k400/train.csv"), Path("k400_256"), "train", ReencodeConfig(), …)

    k400_256/train/a.mp4 …       the directory tree of the originals
    k400_256/train.csv           the list of the copies, with labels.txt beside it
    k400_256/train.broken.jsonl  {"path", "reason", "message"} of each unreadable video
    k400_256/reencode.json       the settings; a folder never mixes copies of two settings

Every frame and its time is kept. A copy appears once it is complete and has been read back. It has
the modification time of its original, by which the next run skips it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import FILE_NAME, OnOpen, QuarantinePolicy
from hiera_video.data.manifest.class_names import (
    find_class_names,
    share_class_names,
    write_class_names,
)
from hiera_video.data.manifest.list_file import format_line, refuse_to_overwrite
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.reencode_config import ReencodeConfig
from hiera_video.data.prepare.transcode import transcode
from hiera_video.errors import ConfigError, DecodeError, ManifestError
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.resumable import exclusive
from hiera_video.utils.text_files import read_json
from hiera_video.video.pyav import PyAVReader

SETTINGS = "reencode.json"


@dataclass(frozen=True, kw_only=True)
class VideoCopy:
    """Result of copying one video."""

    path: str
    """Path of the original."""
    start_seconds: float = 0.0
    """Time of the original's first frame; the copy starts at 0."""
    existed: bool = False
    """True if an earlier run made the copy."""
    reason: str | None = None
    """Why there is no copy, one of `hiera_video.video.reader.REASONS`; None: there is one."""
    message: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReencodeResult:
    """List of the copies, and how many videos were written, skipped and unreadable."""

    manifest: Path
    written: int
    existed: int
    unreadable: int


def reencode(
    manifest: Manifest,
    folder: Path,
    name: str,
    config: ReencodeConfig,
    *,
    root: Path,
    workers: int,
    quarantine: QuarantinePolicy,
    progress: Callable[[Iterator[VideoCopy], int], Iterable[VideoCopy]] = lambda copies, _: copies,
) -> ReencodeResult:
    """Make the copies that are missing, and the list of all copies.

    Lists in one folder share its `labels.txt`: labels are mapped to the names that the first list
    wrote there.

    Args:
        manifest: Videos to copy; each must be a file below `root`.
        folder: Output folder, with the tree that the originals have below `root`.
        name: Name of the list, `folder/name.csv`.
        config: Size, key frame interval and quality.
        root: Folder of the data set.
        workers: Processes; 0 copies in this one.
        quarantine: Deadline of one video. Hung videos are listed in the output folder.
        progress: Wraps the iterator of copies, of the given length, to show progress.

    Returns:
        The list's path and the counts.

    Raises:
        ConfigError: The folder has copies of other settings or originals, or a list of the user's;
            another process makes the same list; or a copy cannot be written.
        ManifestError: A class is missing in `labels.txt`, a record is not a file below `root`, or
            no video is readable.
    """
    targets = plan_copies(manifest, root, folder)
    listing, failures = folder / f"{name}.csv", folder / f"{name}.broken.jsonl"
    refuse_to_overwrite(listing, [manifest.source], written_by_us=failures.is_file())
    names, names_file = find_class_names(listing)
    if names is not None:
        manifest = share_class_names(manifest, names, str(names_file))
    _claim_folder(folder, {**asdict(config), "originals": str(root.resolve())})
    copier = VideoCopier(
        jobs=tuple(targets.items()),
        config=config,
        scratch=folder / f".{name}.unfinished",  # of this split; others may be in progress
    )
    quarantine = replace(quarantine, file=str(folder / FILE_NAME))
    busy = (
        f"{folder}: another command is making the copies of {name!r} there; wait for its end or "
        "choose another folder"
    )
    with exclusive(folder / f".{name}.lock", busy):
        copies = copier.run(workers, quarantine)
        copy_of = {copy.path: copy for copy in progress(copies, len(targets))}
        return _write_lists(manifest, folder, name, targets, copy_of)


def _write_lists(
    manifest: Manifest,
    folder: Path,
    name: str,
    targets: dict[str, Path],
    copy_of: dict[str, VideoCopy],
) -> ReencodeResult:
    """Write the list of the copies, their class names and the unreadable videos."""
    listing, failures = folder / f"{name}.csv", folder / f"{name}.broken.jsonl"
    unreadable = [copy for copy in copy_of.values() if copy.reason is not None]
    if len(unreadable) == len(copy_of):
        raise ManifestError(
            f"{manifest.source}: none of its videos is readable; first: {unreadable[0].message}"
        )
    write_atomic(failures, "".join(map(_failure_line, unreadable)))
    if manifest.class_names is not None and find_class_names(listing)[0] is None:
        write_class_names(folder, manifest.class_names)
    lines = []
    for record in manifest.records:
        copy = copy_of[record.path]
        if copy.reason is None:
            moved = shift_segment(record, -copy.start_seconds)
            lines.append(format_line(moved, os.path.relpath(targets[record.path], folder)))
    write_atomic(listing, "".join(lines))
    assert len(read_manifest(str(listing)).records) == len(lines)
    existed = sum(copy.existed for copy in copy_of.values())
    return ReencodeResult(
        manifest=listing,
        written=len(copy_of) - len(unreadable) - existed,
        existed=existed,
        unreadable=len(unreadable),
    )


def plan_copies(manifest: Manifest, root: Path, folder: Path) -> dict[str, Path]:
    """Return the path of each video's copy, by the original's path.

    The copies follow the tree below `root`, so that the splits of a data set can share the folder.
    `.mp4` is appended to any other suffix, so that no two originals share a copy.

    Raises:
        ConfigError: `folder` is the folder of the originals.
        ManifestError: A record is not a file below `root`, or two would have one copy.
    """
    for record in manifest.records:
        if record.shard_video is not None or record.num_frames is not None:
            raise ManifestError(
                f"{record.path}: is not a video file; only files can be re-encoded, not videos in "
                "shards or folders of frames"
            )
    if not manifest.records:
        raise ManifestError(f"{manifest.source}: has no videos to re-encode")
    if folder.resolve() == root.resolve():
        raise ConfigError(
            f"--reencode {folder}: is the folder of the originals; choose another folder"
        )
    targets, originals = dict[str, Path](), dict[Path, str]()
    for record in manifest.records:
        name = os.path.relpath(record.path, root)
        if name.startswith(".."):
            raise ManifestError(
                f"{record.path}: lies outside {root}, the root of the tree that the copies follow"
            )
        target = folder / (name if name.endswith(".mp4") else name + ".mp4")
        if (other := originals.setdefault(target, record.path)) != record.path:
            raise ManifestError(
                f"{record.path}: its copy would be {target}, like that of {other}; "
                "rename one of the two"
            )
        targets[record.path] = target
    return targets


def _claim_folder(folder: Path, settings: dict[str, int | str]) -> None:
    """Record the settings in the folder, or compare them with those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / SETTINGS
    if file.is_file() and (found := read_json(file)) != settings:
        raise ConfigError(
            f"{folder}: has copies with other settings or of other originals ({found}); "
            "choose another folder, or remove it"
        )
    write_atomic(file, json.dumps(settings) + "\n", shared=True)


def _failure_line(copy: VideoCopy) -> str:
    entry = {"path": copy.path, "reason": copy.reason, "message": copy.message}
    return json.dumps(entry) + "\n"


def shift_segment(record: Record, seconds: float) -> Record:
    """Move a record's segment in time, but not before 0; return other records unchanged."""
    if record.start_seconds is None or record.end_seconds is None:
        return record
    return replace(
        record,
        start_seconds=max(record.start_seconds + seconds, 0.0),
        end_seconds=max(record.end_seconds + seconds, 0.0),
    )


@dataclass(frozen=True, kw_only=True)
class VideoCopier:
    """Makes the copy of job number i unless it exists."""

    jobs: tuple[tuple[str, Path], ...]
    """Path of the original and of its copy."""
    config: ReencodeConfig
    scratch: Path
    """Folder of unfinished copies; exists only during a run."""

    def run(self, workers: int, quarantine: QuarantinePolicy) -> Iterator[VideoCopy]:
        """Yield the result of each job, in order."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        numbers = range(len(self.jobs))
        yield from map_videos(self, numbers, workers=workers, quarantine=quarantine)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __call__(self, number: int, on_open: OnOpen) -> VideoCopy:
        source, target = self.jobs[number]
        scratch = self.scratch / f"{number}.{os.getpid()}.mp4"
        try:
            on_open(source)
            with PyAVReader(source) as video:
                start, existed = video.times[0], _is_current(source, target)
                if not existed:
                    transcode(video, source, scratch, target, self.config)
        except DecodeError as error:
            return VideoCopy(path=source, reason=error.reason, message=str(error))
        except OSError as error:
            raise ConfigError(
                f"{target}: cannot be written ({error}); run the command again to resume"
            ) from error
        return VideoCopy(path=source, start_seconds=start, existed=existed)


def _is_current(source: str, target: Path) -> bool:
    # whole seconds: not every disk stores more
    return target.is_file() and int(target.stat().st_mtime) == int(Path(source).stat().st_mtime)
