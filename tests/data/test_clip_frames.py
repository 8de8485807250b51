"""Crops of clips: bounded memory gives the same bytes (issue I, 4.8)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.data import clip_frames
from hiera_video.data.clip_frames import crops_of_clips
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.video import open_video
from hiera_video.video.encode import write_video
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.sequential import FramesRenumbered

FRAME = 64 * 48 * 3
CLIPS = [[0, 4, 8, 12], [6, 10, 14, 18], [30, 34, 38, 38]]
TRANSFORM = EvalTransform(16, 3, (0.45,) * 3, (0.225,) * 3)


class OtherReader:
    """A reader of another backend, with the frames of PyAV's."""

    def __init__(self, video: PyAVReader) -> None:
        self._video, self.info = video, video.info
        self.calls: list[int] = []

    def frames(self, indices: Any) -> Any:
        self.calls.append(len(indices))
        return self._video.frames(indices)


def test_crops_are_the_same_at_once_and_frame_by_frame(
    videos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = videos.write("long.mp4", 40, gop=40, bframes=3)
    with PyAVReader(str(path)) as video:
        expected = crops_of_clips(video, CLIPS, TRANSFORM)
        monkeypatch.setattr(clip_frames, "AT_ONCE_BYTES", 5 * FRAME)
        other: Any = OtherReader(video)
        for reader in (video, other):
            found = crops_of_clips(reader, CLIPS, TRANSFORM)
            assert torch.equal(found.clips, expected.clips) and found.boxes == expected.boxes
        assert other.calls == [5, 5, 1]


def test_frames_that_come_one_by_one_are_decoded_once(
    videos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PyAVReader(str(videos.write("long.mp4", 40, gop=40, bframes=0))) as video:
        video.frames([0])
        first_and_last: list[tuple[int, int]] = []
        packets = video._source.packets

        def note(first: int, last: int) -> Any:
            first_and_last.append((first, last))
            return packets(first, last)

        monkeypatch.setattr(video._source, "packets", note)
        pairs = list(video.iter_at([20, 3, 20, 30]))
        assert [index for index, _ in pairs] == [3, 20, 30] and first_and_last == [(0, 30)]
        assert np.array_equal(pairs[1][1], video.frames([20])[0])


def test_a_renumbered_video_is_started_again(videos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder contradicts the file's times after some frames have been used."""
    path = videos.write("descends.mp4", 40, gop=40, bframes=3)
    with open_video(path) as video:
        expected = crops_of_clips(video, CLIPS, TRANSFORM)
    monkeypatch.setattr(clip_frames, "AT_ONCE_BYTES", 5 * FRAME)
    started: list[int] = []

    def iter_at(self: PyAVReader, indices: Any) -> Any:
        started.append(1)
        if len(started) == 1:
            yield from ((index, np.zeros((48, 64, 3), np.uint8)) for index in indices[:4])
            raise FramesRenumbered
        yield from real(self, indices)

    real = PyAVReader.iter_at
    monkeypatch.setattr(PyAVReader, "iter_at", iter_at)
    with open_video(path) as video:
        assert torch.equal(crops_of_clips(video, CLIPS, TRANSFORM).clips, expected.clips)
    assert len(started) == 2


PROBE = """
import json, sys
from functools import partial
from pathlib import Path
from hiera_video.data.manifest.record import Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.shard_reading import ReadWindows, WindowRequest
from hiera_video.features.windows import sliding_windows
import hiera_video.video.pyav

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

record = Record(path=sys.argv[1], label=None, row=0)
rule = partial(
    sliding_windows, clip=ClipConfig(frame_stride=1), config=FeaturesConfig(unit="frames", stride=8)
)
transform = EvalTransform(224, 1, (0.45,) * 3, (0.225,) * 3)
read = ReadWindows(rule, transform, clip_bytes=4 * 3 * 16 * 224 * 224, records=(record,))
Path("/proc/self/clear_refs").write_text("5")
before, clips, first = status("VmRSS"), 0, 0
while first < 19:
    part = read(WindowRequest(turn=0, shard=0, record=record, first=first), lambda path: None)
    clips, first, total = clips + len(part.clips), first + read.windows_per_part, part.total
print(json.dumps([clips, total, status("VmHWM") - before]))
"""


@pytest.mark.fault
def test_extraction_of_large_frames_takes_less_than_500_mb(tmp_path: Path) -> None:
    """160 frames of 1080p in overlapping windows; all of them take 1.0 GB."""
    path = tmp_path / "large.mp4"
    frames = (np.full((1080, 1920, 3), t, np.uint8) for t in range(160))
    write_video(path, frames, options={"preset": "ultrafast"})
    command = [sys.executable, "-c", PROBE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    clips, total, peak_kb = json.loads(done.stdout)
    assert clips == total == 19 and peak_kb < 500_000
