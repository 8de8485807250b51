"""Exact frames from every kind of file, and a reason for every broken one."""

from __future__ import annotations

import os
import pickle
import random
import struct
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video import open_video
from hiera_video.video.frame_index import PacketFacts, PacketRange, build_index
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import REASONS, Limits, unreadable

FINE = {"qmin": "1", "qmax": "3"}
UNEVEN = [5 + i / 30 + (0.012 if i % 3 else 0.0) for i in range(60)]

HEALTHY: dict[str, dict[str, Any]] = {
    "h264_bframes.mp4": {"gop": 24, "bframes": 3},
    "h264_plain.mp4": {"bframes": 0},
    "h264_open_gop.mp4": {"gop": 12, "options": {"x264-params": "open-gop=1"}},
    "h264_long_gop.mp4": {"gop": 250, "bframes": 4},
    "h264.mkv": {"gop": 24},
    "h264.ts": {"gop": 24},
    "h264_444_odd.mp4": {"pixel_format": "yuv444p", "height": 47},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:pools=none:frame-threads=1"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 20},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "mpeg4.avi": {"codec": "mpeg4", "gop": 12, "options": FINE},
    "mpeg4.mp4": {"codec": "mpeg4", "gop": 12, "options": FINE},
    "mpeg2.mpg": {"codec": "mpeg2video", "gop": 12, "options": FINE},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p", "bframes": 0, "options": FINE},
    "gif.gif": {"codec": "gif", "pixel_format": "rgb8", "bframes": 0, "fps": 25},
    "variable_rate_from_5s.mp4": {"times": UNEVEN},
    "variable_rate_from_5s.mkv": {"times": UNEVEN},
    "one_frame.mp4": {"count": 1},
    "two_frames.mp4": {"count": 2},
}
COUNTED_BY_DECODING = {"vp8.webm", "gif.gif"}


@pytest.fixture(scope="module")
def healthy(shared_videos: Any) -> dict[str, Path]:
    return {
        name: shared_videos.write(name, **{"count": 60, **options})
        for name, options in HEALTHY.items()
    }


def full_decode(path: Path) -> Any:
    """All frames the plain way: PyAV's own loop, every frame decoded and converted."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("kept_bytes", [1 << 30, 0], ids=["in_memory", "seeking"])
@pytest.mark.parametrize("name", HEALTHY)
def test_every_frame_is_exact_in_any_order(
    healthy: dict[str, Path],
    videos: Any,
    name: str,
    kept_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, count = healthy[name], HEALTHY[name].get("count", 60)
    if name not in COUNTED_BY_DECODING:  # the fast path must do it alone
        monkeypatch.setattr(
            PyAVReader, "_decode_all", lambda self: pytest.fail("decoded from the start")
        )
    reference = full_decode(path)
    generator = random.Random(name)
    with PyAVReader(str(path), kept_bytes=kept_bytes) as reader:
        assert reader.info.num_frames == len(reader.times) == len(reference) == count
        assert videos.numbers(reader.frames(range(count))) == list(range(count))
        for _ in range(
            8
        ):  # repeated, out of order; bit-identical although unwanted pictures are skipped
            indices = generator.choices(range(count), k=generator.choice([1, 3, 16]))
            frames = reader.frames(indices)
            assert videos.numbers(frames) == indices
            assert np.array_equal(frames, reference[indices])
            assert frames.flags.c_contiguous
        assert reader.frames([]).shape == (0, *reference.shape[1:])


def test_info_and_times(healthy: dict[str, Path]) -> None:
    with open_video(healthy["h264_bframes.mp4"]) as video:
        info = video.info
        assert (info.num_frames, info.fps, info.width, info.height) == (60, 30.0, 64, 48)
        assert (info.rotation, info.duration_seconds, info.codec) == (0, pytest.approx(2.0), "h264")
        assert video.fps == 30.0
        assert video.times == pytest.approx([i / 30 for i in range(60)])
    with open_video(healthy["variable_rate_from_5s.mp4"]) as video:
        assert video.times == pytest.approx([time - 5 for time in UNEVEN], abs=1e-4)
        assert video.info.fps == pytest.approx(30, rel=0.02)


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "50", "60"])
def test_frame_rates_are_the_headers(videos: Any, rate: str) -> None:
    from fractions import Fraction

    for suffix in ("mp4", "mkv"):  # mkv rounds its times to milliseconds
        with open_video(videos.write(f"a.{suffix}", 30, fps=Fraction(rate))) as video:
            assert video.fps == float(Fraction(rate))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(videos: Any, rotation: int) -> None:
    path = videos.write("a.mp4", 5, rotation=rotation)
    with open_video(path) as video:
        frames = video.frames([0, 4, 2])
        assert video.info.rotation == rotation
        assert (
            frames.shape[1:3]
            == (video.info.height, video.info.width)
            == ((48, 64) if rotation == 180 else (64, 48))
        )
    assert np.array_equal(
        frames, np.rot90(full_decode(path)[[0, 4, 2]], rotation // 90, axes=(1, 2))
    )


def test_rotation_turns_the_way_that_the_file_format_says(videos: Any) -> None:
    """ISO 14496-12: x' = a x + c y, y' = b x + d y; (a b c d) = (0 1 -1 0) takes right to down: clockwise."""
    path = videos.write("a.mp4", 2, rotation=270)
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    start = data.index(b"tkhd")
    assert data[start + 44 : start + 80][:20] == matrix[:20]
    with open_video(path) as video:
        upright = video.frames([1])[0]
    assert np.array_equal(upright, full_decode(path)[1].transpose(1, 0, 2)[:, ::-1])  # clockwise


def stream_copy(source: Path, target: Path, first_key: int, start: int, stop: int) -> Path:
    """What `ffmpeg -ss -to -c copy` does: packets from a key frame on, an edit list that hides the ones too many."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        tick = 512  # 1/15360 s a tick at 30 fps
        for packet in old.demux(stream):
            if packet.dts is None or not first_key * tick <= packet.pts < stop * tick:
                continue
            packet.pts, packet.dts = packet.pts - start * tick, packet.dts - start * tick
            packet.stream = copy
            new.mux(packet)
    return target


@pytest.mark.parametrize("kept_bytes", [1 << 30, 0], ids=["in_memory", "seeking"])
def test_edit_lists(videos: Any, kept_bytes: int) -> None:
    source = videos.write("source.mp4", 90, gop=30, bframes=3)
    path = stream_copy(source, videos.folder / "trimmed.mp4", first_key=30, start=42, stop=90)
    with PyAVReader(str(path), kept_bytes=kept_bytes) as reader:
        assert reader.info.num_frames == 48  # of 60 packets
        assert videos.numbers(reader.frames(range(48))) == list(range(42, 90))
        assert videos.numbers(reader.frames([47, 0, 20, 20])) == [89, 42, 62, 62]
        assert reader.times[0] == pytest.approx(0)


def test_a_video_beside_sound(videos: Any) -> None:
    source, path = videos.write("silent.mp4", 30), videos.folder / "sound.mp4"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        sound = new.add_stream("aac", rate=16000, layout="mono")
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
        )
        samples.sample_rate = 16000
        new.mux(sound.encode(samples))
        new.mux(sound.encode(None))
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    with open_video(path) as video:
        assert videos.numbers(video.frames(range(30))) == list(range(30))


def test_live_matroska_and_fragmented_mp4_promise_nothing(videos: Any) -> None:
    source = videos.write("a.mp4", 30, gop=10)
    for name, options in (
        ("live.mkv", {"live": "1"}),
        ("fragments.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ):
        path = videos.folder / name
        with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
            stream = old.streams.video[0]
            copy = new.add_stream_from_template(stream)
            for packet in old.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    new.mux(packet)
        with open_video(path) as video:
            assert videos.numbers(video.frames([29, 3])) == [29, 3]


def test_broken_references_at_the_start_are_not_frames(videos: Any) -> None:
    """A transport stream cut in the middle of a group: the first picture that can be decoded is frame 0."""
    source = videos.write("a.ts", 60, gop=20, bframes=2)
    data = source.read_bytes()
    path = videos.folder / "cut.ts"
    path.write_bytes(data[188 * 40 :])
    with open_video(path) as video:
        numbers = videos.numbers(video.frames(range(video.info.num_frames)))
    assert 20 <= len(numbers) < 60
    assert numbers == list(range(60 - len(numbers), 60))


# -- broken files ------------------------------------------------------------------------------------------------------


def audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
        )
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, name: str, share: float) -> Path:
    data = path.read_bytes()
    target = path.with_name(name)
    target.write_bytes(data[: int(len(data) * share)])
    return target


def moov_first(path: Path) -> Path:
    target = path.with_name("faststart.mp4")
    with (
        av.open(str(path)) as old,
        av.open(str(target), "w", options={"movflags": "faststart"}) as new,
    ):
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    return target


def make_broken(kind: str, videos: Any) -> Path:
    folder: Path = videos.folder
    path = folder / "broken.mp4"
    if kind in ("empty", "text", "random", "hls", "ffconcat", "picture"):
        videos.write("inner.mp4", 5)
        inner = folder / "inner.mp4"
        content = {
            "empty": b"",
            "text": b"hello, I am not a video\n" * 100,
            "random": random.Random(0).randbytes(5000),
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{inner}\n#EXT-X-ENDLIST\n".encode(),
            "ffconcat": f"ffconcat version 1.0\nfile {inner.name}\n".encode(),
            "picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0",
        }
        path.write_bytes(content[kind])
        return path
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
        return path
    if kind == "pipe":
        os.mkfifo(path)
        return path
    if kind == "audio":
        return audio_only(folder / "broken.mp4")
    source = videos.write("source.mp4", 60)
    if kind == "no_moov":
        return cut(source, "broken.mp4", 0.5)
    if kind.startswith("truncated_"):
        name, share = kind.removeprefix("truncated_").rsplit("_", 1)
        if name == "mp4":
            source = moov_first(source)
        elif name != "mp4":
            source = videos.write(f"source.{name}", 200)
        return cut(source, f"broken.{name}", int(share) / 100)
    if kind == "huge_picture":
        data = bytearray(videos.write("a.gif", 5, **HEALTHY["gif.gif"]).read_bytes())
        data[6:10] = struct.pack("<HH", 65000, 65000)
        path.write_bytes(data)
        return path
    if kind == "hole":
        data = bytearray(source.read_bytes())
        start = data.index(b"mdat") + 4
        size = struct.unpack(">I", data[start - 8 : start - 4])[0] - 8
        data[start + size // 3 : start + size // 3 * 2] = bytes(size // 3)
        path.write_bytes(data)
        return path
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        ("missing", {"missing"}),
        ("folder", {"not_a_file"}),
        ("pipe", {"not_a_file"}),
        ("empty", {"empty"}),
        ("text", {"container"}),
        ("random", {"container"}),
        ("hls", {"container"}),
        ("ffconcat", {"container"}),
        ("picture", {"container"}),
        ("audio", {"no_video"}),
        ("no_moov", {"container"}),
        ("truncated_mp4_90", {"truncated"}),
        ("truncated_mp4_50", {"truncated"}),
        ("truncated_mp4_20", {"truncated", "container"}),
        ("truncated_mkv_90", {"truncated"}),
        ("truncated_mkv_50", {"truncated"}),
        ("truncated_avi_50", {"truncated"}),
        ("huge_picture", {"too_large", "container"}),
        ("hole", {"corrupt"}),
    ],
)
def test_broken_files_have_a_reason(videos: Any, kind: str, reasons: set[str]) -> None:
    path = make_broken(kind, videos)
    began = time.monotonic()
    with pytest.raises(DecodeError) as caught, open_video(path) as video:
        video.frames(range(video.info.num_frames))
    assert time.monotonic() - began < 5
    assert caught.value.reason in reasons
    assert str(caught.value).startswith(f"{path}: ")


def test_no_permission(videos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = videos.write("a.mp4", 2)
    path.chmod(0)
    monkeypatch.setattr(
        os, "access", lambda *_: False
    )  # root, as in containers, may read everything
    with pytest.raises(DecodeError, match=r"permission denied; check its permissions") as caught:
        open_video(path)
    assert caught.value.reason == "permission"


def test_limits_come_before_decoding(
    healthy: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(healthy["h264_plain.mp4"])
    with pytest.raises(
        DecodeError, match=r"frames of 64x48 are over the limit of 1000 pixels"
    ) as caught:
        PyAVReader(path, limits=Limits(max_pixels=1000))
    assert caught.value.reason == "too_large"
    with PyAVReader(path, limits=Limits(max_bytes=64 * 48 * 3 * 10)) as reader:
        assert len(reader.frames(range(10))) == 10
        monkeypatch.setattr(
            PyAVReader, "_decode", lambda *_: pytest.fail("decoded before the check")
        )
        with pytest.raises(
            DecodeError,
            match=r"11 frames of 64x48 take 0 MiB, over the limit of 0 MiB; make the video",
        ):
            reader.frames(range(11))


def test_wrong_indices_and_backends(healthy: dict[str, Path]) -> None:
    with open_video(healthy["two_frames.mp4"]) as video:
        for wrong in (2, -1):
            with pytest.raises(
                IndexError, match=rf"frame {wrong} does not exist; the video has 2 frames, 0 to 1"
            ):
                video.frames([0, wrong])
    with pytest.raises(
        ConfigError,
        match=r"unknown decoder 'decrod'; choose one of pyav, decord, torchcodec, frames",
    ):
        open_video(healthy["two_frames.mp4"], backend="decrod")


def test_errors_survive_pickling_and_reasons_are_fixed() -> None:
    error = pickle.loads(pickle.dumps(unreadable("a.mp4", "corrupt", "is damaged")))
    assert (type(error), str(error), error.reason) == (DecodeError, "a.mp4: is damaged", "corrupt")
    assert len(set(REASONS)) == len(REASONS)
    with pytest.raises(AssertionError):
        unreadable("a.mp4", "typo", "x")


def test_files_are_closed(healthy: dict[str, Path], videos: Any) -> None:
    bad = make_broken("truncated_mp4_50", videos)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with open_video(healthy["h264.mkv"]) as video:
            video.frames([5])
        with pytest.raises(DecodeError):
            open_video(bad)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- which packets for which frames: no file needed --------------------------------------------------------------------


def packets(
    *pts: int, keys: tuple[int, ...] = (0,), discard: tuple[int, ...] = ()
) -> list[PacketFacts]:
    return [PacketFacts(time, i in keys, i in discard) for i, time in enumerate(pts)]


def test_runs_start_at_the_key_frame_before() -> None:
    index = build_index(
        packets(0, 3, 1, 2, 6, 4, 5, 9, 7, 8, keys=(0, 4))
    )  # I0 P3 B1 B2 | I6 B4 B5 P9 B7 B8
    assert index is not None
    assert index.packet == (0, 2, 3, 1, 5, 6, 4, 8, 9, 7)
    assert index.ranges([7]) == [PacketRange(4, 8, frozenset([7]))]
    assert index.ranges([4]) == [
        PacketRange(0, 5, frozenset([4]))
    ]  # open GOP: shown before the key packet that it follows
    assert index.ranges([9, 1, 1]) == [
        PacketRange(0, 2, frozenset([1])),
        PacketRange(4, 7, frozenset([9])),
    ]
    assert index.ranges([4, 7]) == [
        PacketRange(0, 8, frozenset([4, 7]))
    ]  # overlapping stretches are decoded once


def test_what_packets_cannot_tell() -> None:
    assert build_index([]) is None
    assert build_index([PacketFacts(None, True, False)]) is None
    assert build_index(packets(0, 1, 1)) is None
    assert build_index(packets(0, 1, 2, keys=(1,))) is None
    assert build_index(packets(2, 0, 1)) is None
    trimmed = build_index(packets(-2, -1, 0, 1, discard=(0, 1)))
    assert trimmed is not None
    assert trimmed.pts == (0, 1)
    assert trimmed.ranges([0]) == [PacketRange(0, 2, frozenset([0]))]
