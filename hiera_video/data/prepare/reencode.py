"""Copies of videos that are quick to read: smaller, a key frame every 32 frames, upright, H.264 without sound.

    reencode(read_manifest("k400/train.csv"), Path("k400_256"), "train", Recipe(), root=Path("k400"), …)

    k400_256/train/a.mp4 …       the tree of the originals
    k400_256/train.csv           their list, labels.txt beside it
    k400_256/train.broken.jsonl  {"path", "reason", "message"} of each video that could not be read, and is left out
    k400_256/reencode.json       the recipe, so that no folder holds videos of two

Frames and their times are kept one for one. A copy appears when it is complete and has been read back, with its
original's date, by which the next run knows that it is done.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import FILE_NAME, OnOpen, QuarantinePolicy
from hiera_video.data.manifest.class_names import find_class_names, share_class_names
from hiera_video.data.manifest.list_file import format_line, refuse_to_overwrite
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.reencode_config import Recipe
from hiera_video.errors import ConfigError, DecodeError, ManifestError
from hiera_video.utils.atomic_files import publish, sync, write_atomic
from hiera_video.utils.text_files import read_json
from hiera_video.video.encode import TICKS_PER_SECOND, write_video
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import unreadable

RECIPE = "reencode.json"
BFRAMES = 3
ROUNDING_SECONDS = 0.00101
"""Containers that count milliseconds round each time by half of one: such videos have a constant rate all the same."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What became of one video."""

    path: str
    """Of the original."""
    start_seconds: float = 0.0
    """Where the original's first frame lies on its clock; the copy's lies at 0."""
    done_before: bool = False
    reason: str | None = None
    """Why there is no copy, one of `decode.protocol.REASONS`."""
    message: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reencoded:
    """What a run did."""

    manifest: Path
    written: int
    done_before: int
    broken: int


def reencode(
    manifest: Manifest,
    folder: Path,
    name: str,
    recipe: Recipe,
    *,
    root: Path,
    workers: int,
    quarantine: QuarantinePolicy,
    progress: Callable[[Iterator[Copied], int], Iterable[Copied]] = lambda copies, _: copies,
) -> Reencoded:
    """Make the copies that are not there yet, in the tree that the originals have below `root`, and the list
    `folder/name.csv` of all. Lists that share the folder share the names of its labels file: labels are mapped to them.
    `ConfigError` where the folder holds copies by another recipe, or a list of the user's; `ManifestError` where its names
    lack one of the manifest's classes, or not one video can be read."""
    targets = copies_of(manifest, root, folder)
    listing, failures = folder / f"{name}.csv", folder / f"{name}.broken.jsonl"
    refuse_to_overwrite(listing, [manifest.source], written_by_us=failures.is_file())
    names, names_file = find_class_names(listing)
    if names is not None:
        manifest = share_class_names(manifest, names, str(names_file))
    _claim(folder, {**asdict(recipe), "originals": str(root.resolve())})
    scratch = folder / f".{name}.unfinished"  # its own: another split may be at work in the folder
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    jobs = list(targets.items())
    work = _Copy(jobs=tuple(jobs), recipe=recipe, scratch=scratch)
    quarantine = replace(quarantine, file=str(folder / FILE_NAME))
    copies = map_videos(work, range(len(jobs)), workers=workers, quarantine=quarantine)
    found = {copy.path: copy for copy in progress(copies, len(jobs))}
    shutil.rmtree(scratch, ignore_errors=True)
    failed = [copy for copy in found.values() if copy.reason is not None]
    if len(failed) == len(found):
        raise ManifestError(
            f"{manifest.source}: not one of its videos can be read; the first: {failed[0].message}"
        )
    write_atomic(
        failures,
        "".join(
            json.dumps({"path": copy.path, "reason": copy.reason, "message": copy.message}) + "\n"
            for copy in failed
        ),
    )
    kept = [record for record in manifest.records if found[record.path].reason is None]
    lines = [
        format_line(
            _moved(record, found[record.path]), os.path.relpath(targets[record.path], folder)
        )
        for record in kept
    ]
    if names is None and manifest.class_names is not None:
        write_atomic(folder / "labels.txt", "".join(f"{name}\n" for name in manifest.class_names))
    write_atomic(listing, "".join(lines))
    assert len(read_manifest(str(listing)).records) == len(kept)
    before = sum(copy.done_before for copy in found.values())
    return Reencoded(
        manifest=listing,
        written=len(found) - len(failed) - before,
        done_before=before,
        broken=len(failed),
    )


def copies_of(manifest: Manifest, root: Path, folder: Path) -> dict[str, Path]:
    """Where each video's copy goes: the tree below `root`, with `.mp4` behind any other suffix, so that the splits of a
    data set can share the folder and no two originals a copy."""
    for record in manifest.records:
        if record.shard_video is not None or record.num_frames is not None:
            raise ManifestError(
                f"{record.path}: is no video file of its own, and only such are re-encoded"
            )
    if not manifest.records:
        raise ManifestError(f"{manifest.source}: holds no videos to re-encode")
    if folder.resolve() == root.resolve():
        raise ConfigError(f"--reencode {folder}: is where the originals are; choose another folder")
    targets, originals = dict[str, Path](), dict[Path, str]()
    for record in manifest.records:
        name = os.path.relpath(record.path, root)
        if name.startswith(".."):
            raise ManifestError(f"{record.path}: lies outside {root}, whose tree the copies follow")
        target = folder / (name if name.endswith(".mp4") else name + ".mp4")
        if (other := originals.setdefault(target, record.path)) != record.path:
            raise ManifestError(
                f"{record.path}: its copy would be {target}, as that of {other}; rename one of the two"
            )
        targets[record.path] = target
    return targets


def _claim(folder: Path, facts: dict[str, int | str]) -> None:
    """The folder is this recipe's and these originals' from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RECIPE
    if file.is_file() and (there := read_json(file)) != facts:
        raise ConfigError(
            f"{folder}: holds copies by another recipe or of others ({there}); choose another folder, or remove it"
        )
    write_atomic(file, json.dumps(facts) + "\n")


def _moved(record: Record, copy: Copied) -> Record:
    """A stretch of the original, on the copy's clock."""
    if record.start_seconds is None or record.end_seconds is None:
        return record
    start, end = (
        max(time - copy.start_seconds, 0.0) for time in (record.start_seconds, record.end_seconds)
    )
    return replace(record, start_seconds=start, end_seconds=end)


# -- one video ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """Copies job number i."""

    jobs: tuple[tuple[str, Path], ...]
    recipe: Recipe
    scratch: Path

    def __call__(self, number: int, opening: OnOpen) -> Copied:
        source, target = self.jobs[number]
        try:
            opening(source)
            with PyAVReader(source) as video:
                start = video.times[0]
                if _is_done(source, target):
                    return Copied(path=source, start_seconds=start, done_before=True)
                self._write(video, source, self.scratch / f"{number}.{os.getpid()}.mp4", target)
        except DecodeError as error:
            return Copied(path=source, reason=error.reason, message=str(error))
        except OSError as error:
            raise ConfigError(
                f"{target}: cannot be written ({error}); the next run goes on from here"
            ) from error
        return Copied(path=source, start_seconds=start)

    def _write(self, video: PyAVReader, source: str, scratch: Path, target: Path) -> None:
        info, recipe = video.info, self.recipe
        rate = constant_rate(video.times, video.fps)
        seconds = [time - video.times[0] for time in video.times]
        write_video(
            scratch,
            video.iter_frames(),
            fps=rate or video.fps,
            times=None if rate else seconds,
            size=size_of(info.height, info.width, recipe.short_side),
            gop=recipe.gop,
            bframes=BFRAMES,
            crf=recipe.crf,
        )
        tolerance = ROUNDING_SECONDS if rate else 1 / TICKS_PER_SECOND
        with PyAVReader(str(scratch)) as copy:
            if not same_times(copy.times, seconds, tolerance):
                raise unreadable(
                    source,
                    "codec",
                    "its copy has other frames or times; give it a constant rate by other means",
                )
        date = Path(source).stat()
        os.utime(scratch, ns=(date.st_atime_ns, date.st_mtime_ns))
        target.parent.mkdir(parents=True, exist_ok=True)
        sync(scratch)
        publish(scratch, target)


def _is_done(source: str, target: Path) -> bool:
    """Whole seconds: not every disk keeps more."""
    return target.is_file() and int(target.stat().st_mtime) == int(Path(source).stat().st_mtime)


def constant_rate(times: Sequence[float], fps: float) -> Fraction | None:
    """The rate, as a fraction such as 30000/1001, that all times are multiples of; None where there is none."""
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0 or any(
        abs(time - times[0] - i / rate) > ROUNDING_SECONDS for i, time in enumerate(times)
    ):
        return None
    return rate


def same_times(found: Sequence[float], wanted: Sequence[float], tolerance: float) -> bool:
    return len(found) == len(wanted) and all(abs(a - b) <= tolerance for a, b in zip(found, wanted))


def size_of(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of the copy: never larger, and even, as H.264 has it."""
    scale = min(1.0, short_side / min(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)
