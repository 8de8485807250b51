"""A copy has its original's frames and times, one for one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiera_video.data.prepare import transcode as module
from hiera_video.data.prepare.reencode_config import ReencodeConfig
from hiera_video.data.prepare.transcode import constant_rate, output_size, same_times, transcode
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video import open_video
from hiera_video.video.packets import PacketSource
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits
from hiera_video.video.sources import byte_source

KINDS = (
    "h264_bframes.mp4",
    "h264_25fps.mp4",
    "h264.ts",
    "h264.flv",
    "vp8.webm",
    "hevc.mkv",
    "mpeg4.avi",
    "gif.gif",
    "variable_rate_from_5s.mp4",
    "variable_rate_from_5s.mkv",
    "trimmed_12.mp4",
    "long_gop.mp4",
    "h264_444.mp4",
    "audio_first.mp4",
    "size_changes.ts",
    "one_frame.mp4",
    "h264.avi",
    "packed.avi",
    "gaps.avi",
    "derived_times.mp4",
    "all_sync_mpeg4.mp4",
    "wrong_size.mp4",
)


def copy_of(path: Path, folder: Path, **settings: Any) -> Path:
    target = folder / "out/copy.mp4"
    with PyAVReader(str(path)) as video:
        transcode(video, str(path), folder / "scratch.mp4", target, ReencodeConfig(**settings))
    return target


@pytest.mark.parametrize("name", KINDS)
def test_frames_and_times_are_kept(
    corpus: dict[str, Path], videos: Any, tmp_path: Path, name: str
) -> None:
    copy = copy_of(corpus[name], tmp_path)
    with open_video(corpus[name]) as old, open_video(copy) as new:
        constant = constant_rate(old.times, old.fps)
        times = [time - old.times[0] for time in old.times]
        assert new.times == pytest.approx(times, abs=0.001 if constant else 1e-5)
        assert new.fps == pytest.approx(old.fps, rel=1e-6 if constant else 0.02)
        assert new.info.codec == "h264"
        before, after = (video.frames(range(len(new.times))) for video in (old, new))
    if name == "h264_444.mp4":  # 47 rows become 48
        assert after.shape[1:3] == (48, before.shape[2])
        return
    assert before.shape == after.shape
    assert videos.numbers(after) == videos.numbers(before)


@pytest.mark.parametrize(
    "name", ["rotated_90", "rotated_180", "rotated_270", "mirrored", "transposed", "zero_matrix"]
)
def test_orientation_is_applied(corpus: dict[str, Path], tmp_path: Path, name: str) -> None:
    path = corpus[f"{name}.mp4"]
    copy = copy_of(path, tmp_path)
    with open_video(path) as old, open_video(copy) as new:
        assert new.info.rotation == 0 and not new.info.mirrored
        assert (new.info.width, new.info.height) == (old.info.width, old.info.height)
        assert np.abs(new.frames([7]).astype(int) - old.frames([7])).mean() < 12


def test_size_and_key_frames(videos: Any, tmp_path: Path) -> None:
    path = videos.write("a.mp4", 100, width=160, height=96, gop=250)
    copy = copy_of(path, tmp_path, short_side=48, gop=16)
    packets = PacketSource(byte_source(str(copy)), Limits(), 0)
    keys = [number for number, packet in enumerate(packets.facts) if packet.key]
    packets.close()
    assert keys[0] == 0
    assert max(b - a for a, b in zip(keys, [*keys[1:], 100])) <= 16
    with open_video(copy) as video:
        assert (video.info.width, video.info.height, video.info.num_frames) == (80, 48, 100)
        assert videos.numbers(video.frames(range(100))) == list(range(100))


def test_a_copy_with_other_times_is_refused(
    videos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = videos.write("a.mp4", 5)
    monkeypatch.setattr(module, "same_times", lambda *_: False)
    with pytest.raises(
        DecodeError, match=r"its copy has other frames or times; convert it to a constant rate"
    ):
        copy_of(path, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    [
        "h264_open_gop.mp4", "trimmed_28.mp4", "vp8.webm", "rotated_90.mp4", "mpeg2.ts",
        "h264.avi", "packed.avi", "gaps.avi", "derived_times.mkv",
    ],
)  # fmt: skip
def test_iter_frames_yields_what_frames_returns(corpus: dict[str, Path], name: str) -> None:
    with PyAVReader(str(corpus[name])) as video:
        frames = video.frames(range(len(video.times)))
        assert np.array_equal(np.stack(list(video.iter_frames())), frames)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (256, 340, (256, 340)),
        (1080, 1920, (256, 456)),  # 455.1, made even
        (640, 272, (602, 256)),
        (47, 161, (48, 160)),
        (1, 1, (2, 2)),
    ],
)
def test_output_size(height: int, width: int, expected: tuple[int, int]) -> None:
    assert output_size(height, width, 256) == expected


def test_constant_rate() -> None:
    ntsc = [i * 1001 / 30000 for i in range(300)]
    assert constant_rate(ntsc, 29.97002997) == Fraction(30000, 1001)
    assert constant_rate([round(time, 3) for time in ntsc], 29.97002997) == Fraction(30000, 1001)
    assert constant_rate([5 + i / 25 for i in range(50)], 25.0) == 25
    assert constant_rate([0, 1 / 30, 2 / 30, 0.12], 30.0) is None


def test_same_times() -> None:
    assert same_times([0.0, 1.0], [0.0, 1.004], 0.01)
    assert not same_times([0.0, 1.0], [0.0, 1.02], 0.01)
    assert not same_times([0.0], [0.0, 1.0], 0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"short_side": 8}, "--short-side 8: must be 16 pixels or more"),
        ({"gop": 0}, "--gop 0: must be 1 frame or more"),
        ({"crf": 52}, "--crf 52: must be in 0"),
    ],
)
def test_bad_settings(settings: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ReencodeConfig(**settings)
