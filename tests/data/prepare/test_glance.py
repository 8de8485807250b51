"""A look at a few frames of each video, with bounded memory."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np

from hiera_video.data.loading.quarantine import QuarantinePolicy
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.glance import Glance, glance, near_duplicates, thumbnail


def look(*paths: Path) -> list[Glance]:
    records = tuple(Record(path=str(path), label=0, row=row) for row, path in enumerate(paths))
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="videos")
    policy = QuarantinePolicy(deadline_seconds=60.0)
    return list(glance(manifest, decoder="pyav", workers=0, quarantine=policy))


def test_a_thumbnail_is_the_mean_of_parts() -> None:
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:2, :3] = (30, 60, 90)
    frame[2:4, 3:6, 0] = 30
    small = thumbnail(frame)
    assert small.shape == (16, 16) and small[0, 0] == 60 and small[1, 1] == 10
    assert small.sum() == 70
    assert thumbnail(np.full((3, 5, 3), 7, np.uint8)).tolist() == [[7] * 16] * 16


def test_a_copy_at_another_quality_is_found_and_an_unreadable_file_is_named(videos) -> None:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    for name, crf in (("a", "18"), ("copy", "30")):
        _write(videos.folder / f"{name}.mp4", np.stack([scene] * 12), crf)
    _write(videos.folder / "other.mp4", np.stack([scene[::-1]] * 12), "18")
    (videos.folder / "bad.mp4").write_bytes(b"no video")
    found = look(*(videos.folder / f"{name}.mp4" for name in ("a", "bad", "other", "copy")))
    assert near_duplicates([video.thumbnails for video in found]) == [(0, 3)]
    assert [video.message is None for video in found] == [True, False, True, True]
    assert str(found[1].message).startswith(f"{videos.folder / 'bad.mp4'}: ")


def _write(path: Path, frames: np.ndarray, crf: str) -> None:
    from hiera_video.video.encode import write_video

    write_video(path, frames, fps=12, options={"crf": crf})


def test_a_video_of_three_gigabytes_takes_no_memory(videos) -> None:  # type: ignore[no-untyped-def]
    """Sparse: a box of the size that follows the video's own data."""
    path = videos.write("large.mp4", 24)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size)
        file.write((1).to_bytes(4, "big") + b"free" + (3 << 30).to_bytes(8, "big"))
        file.truncate(size + (3 << 30))
    assert os.stat(path).st_size > 3 << 30  # noqa: PTH116
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (found,) = look(path)
    assert found.message is None and found.thumbnails is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_near_duplicates_differ_by_a_few_levels() -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (3, 16, 16), dtype=np.uint8)
    recoded = (picture.astype(int) + generator.integers(-4, 5, picture.shape)).clip(0, 255)
    moved = picture.copy()
    moved[1, :2, :2] ^= 128  # a small object elsewhere
    other = generator.integers(0, 256, (3, 16, 16), dtype=np.uint8)
    found = near_duplicates([picture, moved, None, other, recoded.astype(np.uint8)])
    assert found == [(0, 4)]
    assert near_duplicates([None, None]) == [] == near_duplicates([])
