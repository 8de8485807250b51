"""PyAV reader: properties, rotation, limits, and files that need care."""

from __future__ import annotations

import gc
import os
import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from corpus import plain_decode
from corpus_makers import HEVC, UNEVEN, remux

from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video import open_video
from hiera_video.video.bitstream import BitstreamCheck
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits


def test_info_and_times(corpus: dict[str, Path]) -> None:
    with open_video(corpus["h264_bframes.mp4"]) as video:
        info = video.info
        assert (info.num_frames, info.fps, info.width, info.height) == (40, 30.0, 64, 48)
        assert (info.rotation, info.codec) == (0, "h264")
        assert info.duration_seconds == pytest.approx(40 / 30)
        assert video.fps == 30.0
        assert video.times == pytest.approx([i / 30 for i in range(40)])
    with open_video(corpus["variable_rate_from_5s.mp4"]) as video:
        assert video.times == pytest.approx([time - 5 for time in UNEVEN], abs=1e-4)
        assert video.info.fps == pytest.approx(30, rel=0.02)
    with open_video(corpus["trimmed_12.mp4"]) as video:
        assert video.info.num_frames == 48  # of 60 packets
        assert video.times[0] == pytest.approx(0)


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "50", "60"])
def test_the_frame_rate_is_that_of_the_header(videos: Any, rate: str) -> None:
    for suffix in ("mp4", "mkv"):  # mkv rounds its times to milliseconds
        with open_video(videos.write(f"a.{suffix}", 30, fps=Fraction(rate))) as video:
            assert video.fps == float(Fraction(rate))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(corpus: dict[str, Path], rotation: int) -> None:
    with open_video(corpus[f"rotated_{rotation}.mp4"]) as video:
        frames, info = video.frames([0, 4, 2]), video.info
    assert info.rotation == rotation
    assert (info.height, info.width) == ((48, 64) if rotation == 180 else (64, 48))
    assert frames.shape[1:3] == (info.height, info.width)


def test_the_direction_of_rotation_follows_the_file_format(videos: Any) -> None:
    """Check against the matrix of ISO 14496-12: x' = a x + c y, y' = b x + d y.

    (a b c d) = (0 1 -1 0) maps right to down, which is clockwise.
    """
    path = videos.write("a.mp4", 2, rotation=270)
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    start = data.index(b"tkhd")
    assert data[start + 44 : start + 80][:20] == matrix[:20]
    with open_video(path) as video:
        upright = video.frames([1])[0]
    stored = np.rot90(plain_decode(path)[1], -3)  # without the rotation that `plain_decode` applies
    assert np.array_equal(upright, stored.transpose(1, 0, 2)[:, ::-1])  # clockwise


def with_matrix(source: Path, *values: float) -> Path:
    """Copy an MP4 file with other values a, b, c, d of its display matrix."""
    data = bytearray(source.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (round(value * 65536) for value in values)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = source.with_name("matrix.mp4")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("matrix", "rotation", "mirrored"),
    [
        ((1, 0, 0, 1), 0, False),
        ((0, 1, -1, 0), 270, False),
        ((-1, 0, 0, -1), 180, False),
        ((0, -1, 1, 0), 90, False),
        ((-1, 0, 0, 1), 0, True),  # front cameras
        ((1, 0, 0, -1), 180, True),
        ((0, 1, 1, 0), 270, True),
        ((0, -1, -1, 0), 90, True),
        ((0, 2, -0.5, 0), 270, False),  # scaled
        ((0, 0, 0, 0), 0, False),  # nonsense
        ((1, 0, 0, 0), 0, False),
        ((0.7071, 0.7071, -0.7071, 0.7071), 0, False),  # 45 degrees
    ],
)
def test_all_eight_orientations(
    videos: Any, matrix: tuple[float, ...], rotation: int, mirrored: bool
) -> None:
    """A pixel at (x, y) is shown at (a x + c y, b x + d y), shifted into view."""
    source = videos.write("a.mp4", 3, width=48)
    with open_video(source) as video:
        stored = video.frames([1])[0]
    with PyAVReader(str(with_matrix(source, *matrix))) as video:
        in_order = list(video.iter_frames())
        shown = video.frames([1])[0]
        assert (video.info.rotation, video.info.mirrored) == (rotation, mirrored)
    assert np.array_equal(in_order[1], shown)
    a, b, c, d = matrix
    if not all(np.sign(matrix[:2]) ** 2 + np.sign(matrix[2:]) ** 2 == 1):
        a, b, c, d = 1, 0, 0, 1  # upright
    y, x = np.mgrid[: stored.shape[0], : stored.shape[1]]
    left, top = np.sign(a) * x + np.sign(c) * y, np.sign(b) * x + np.sign(d) * y
    expected = np.empty_like(shown)
    expected[(top - top.min()).astype(int), (left - left.min()).astype(int)] = stored
    assert np.array_equal(shown, expected)


def test_angles_between_quarter_turns_are_logged_once(
    videos: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source = videos.write("a.mp4", 3)
    path = with_matrix(source, 0.866, 0.5, -0.5, 0.866)
    for _ in range(2):
        with open_video(path) as video:
            video.frames([1])
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith(
        "matrix.mp4: its display matrix turns the frames by 30 degrees; only quarter turns are "
        "applied, so the frames stay as they are stored"
    )


def test_an_orientation_in_the_first_frame_alone(videos: Any) -> None:
    """H.264 may hold it in a message of the first frame, which the others do not repeat."""
    source = videos.write("a.ts", 30, gop=10)
    path = videos.folder / "message.ts"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        message = BitStreamFilterContext(
            "h264_metadata=display_orientation=insert:rotate=90", stream
        )
        for packet in old.demux(stream):
            for changed in message.filter(packet if packet.size else None):
                changed.stream = copy
                new.mux(changed)
    with open_video(path) as video, open_video(source) as original:
        upright = np.rot90(original.frames([25])[0])
        assert np.array_equal(video.frames([25])[0], upright)
        assert video.info.rotation == 90


def test_frames_with_missing_references_at_the_start_are_skipped(videos: Any) -> None:
    """In a transport stream cut inside a GOP, frame 0 is the first one that can be decoded."""
    data = videos.write("a.ts", 60, gop=20, bframes=2).read_bytes()
    path = videos.folder / "cut.ts"
    path.write_bytes(data[188 * 40 :])
    with open_video(path) as video:
        numbers = videos.numbers(video.frames(range(video.info.num_frames)))
    assert 20 <= len(numbers) < 60
    assert numbers == list(range(60 - len(numbers), 60))


def test_the_stream_decides_the_size(corpus: dict[str, Path], videos: Any) -> None:
    for indices in ([7, 3], [0]):
        with open_video(corpus["wrong_size.mp4"]) as video:
            assert video.frames(indices).shape == (len(indices), 48, 64, 3)
            assert (video.info.width, video.info.height) == (64, 48)
            assert videos.numbers(video.frames(range(40))) == list(range(40))
    limits = Limits(max_bytes=64 * 48 * 3 * 10)  # of frames as they are
    with PyAVReader(str(corpus["wrong_size.mp4"]), limits=limits) as video:
        assert video.info.width == 64 and len(video.frames(range(10))) == 10


def test_encrypted_videos(corpus: dict[str, Path]) -> None:
    words = "encrypted.mp4: its video is encrypted; decrypt it, or download it without protection"
    with pytest.raises(DecodeError, match=words):
        open_video(corpus["encrypted.mp4"])


@pytest.mark.parametrize(
    ("suffix", "codec", "name"),
    [
        (".h264", "libx264", "H.264"),
        (".265", "libx265", "HEVC"),
        (".m4v", "mpeg4", "MPEG-4"),
        (".m2v", "mpeg2video", "MPEG-1 or MPEG-2"),
    ],
)
def test_raw_streams_are_named(videos: Any, suffix: str, codec: str, name: str) -> None:
    formats = {".h264": "h264", ".265": "hevc", ".m4v": "m4v", ".m2v": "mpeg2video"}
    source, path = videos.write("a.avi", 5, codec="mpeg4"), videos.folder / f"a{suffix}"
    with av.open(str(source)) as old, av.open(str(path), "w", format=formats[suffix]) as new:
        options = HEVC if codec == "libx265" else {}
        stream = new.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in old.decode(video=0):
            frame.pts = None
            new.mux(stream.encode(frame))
        new.mux(stream.encode(None))
    words = f"a raw {name} stream without a container stores no frame times; encode it into an MP4"
    with pytest.raises(DecodeError, match=words) as caught:
        open_video(path)
    assert caught.value.reason == "container"


def test_a_file_without_permission(videos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = videos.write("a.mp4", 2)
    path.chmod(0)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(DecodeError, match="permission denied; check its permissions") as caught:
        open_video(path)
    assert caught.value.reason == "permission"


def test_limits_are_checked_before_decoding(
    corpus: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(corpus["h264_plain.mp4"])
    words = "frames of 64x48 are over the limit of 1000 pixels"
    with pytest.raises(DecodeError, match=words) as caught:
        PyAVReader(path, limits=Limits(max_pixels=1000))
    assert caught.value.reason == "too_large"
    with PyAVReader(path, limits=Limits(max_bytes=64 * 48 * 3 * 10)) as reader:
        assert len(reader.frames(range(10))) == 10
        monkeypatch.setattr(
            PyAVReader, "_decode", lambda *_: pytest.fail("decoded before the check")
        )
        words = "11 frames of 64x48 take 0 MiB, over the limit of 0 MiB; make the video smaller"
        with pytest.raises(DecodeError, match=words):
            reader.frames(range(11))


def test_frames_that_do_not_exist(corpus: dict[str, Path]) -> None:
    with open_video(corpus["two_frames.mp4"]) as video:
        for wrong in (2, -1):
            words = f"frame {wrong} does not exist; the video has 2 frames, 0 to 1"
            with pytest.raises(IndexError, match=words):
                video.frames([0, wrong])


def test_an_unknown_backend(corpus: dict[str, Path]) -> None:
    words = "unknown decoder 'decrod'; choose one of pyav, decord, torchcodec, frames"
    with pytest.raises(ConfigError, match=words):
        open_video(corpus["two_frames.mp4"], backend="decrod")


def test_files_are_closed(corpus: dict[str, Path]) -> None:
    gc.collect()  # readers of other tests
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with open_video(corpus["h264.mkv"]) as video:
            video.frames([5])
        with pytest.raises(DecodeError):
            open_video(corpus["truncated_50.mp4"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_times_that_descend_while_decoding_are_not_trusted(
    corpus: dict[str, Path], videos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No header shows that frames are reordered; only the decoder does."""
    monkeypatch.setattr(BitstreamCheck, "order_is_certain", lambda *_: True)
    with open_video(corpus["derived_times.mp4"]) as video:
        assert videos.numbers(video.frames(range(40))) == list(range(40))
        assert videos.numbers(video.frames([2, 1])) == [2, 1]
    with PyAVReader(str(corpus["derived_times.mkv"])) as video:
        assert videos.numbers(video.iter_frames()) == list(range(40))


def test_a_seek_in_444_heeds_the_encoder_in_the_first_packet(videos: Any) -> None:
    """For x264 before build 151, FFmpeg decodes 4:4:4 differently."""
    source = videos.write(
        "a.mp4", 40, gop=10, pixel_format="yuv444p", options={"x264-params": "8x8dct=1"}
    )
    data = source.read_bytes()
    path = videos.folder / "old.mp4"
    path.write_bytes(re.sub(rb"x264 - core \d+", b"x264 - core 120", data))
    with open_video(source) as new, open_video(path) as old:
        expected = new.frames([35])
        with pytest.raises(DecodeError):
            assert np.array_equal(old.frames([35]), expected)  # as if it was of a new x264


def test_times_of_containers_without_presentation_times(corpus: dict[str, Path]) -> None:
    with open_video(corpus["h264.avi"]) as video:
        assert video.times == pytest.approx([(i + 1) / 30 for i in range(40)])
    with open_video(corpus["gaps.avi"]) as video:
        assert video.times == pytest.approx([i / 10 for i in range(40)])


def test_a_recording_that_continues_with_another_programme(videos: Any, tmp_path: Path) -> None:
    """`cat a.ts b.ts`: the second part is another stream, for which PyAV raises `IndexError`."""
    source, path = videos.write("a.mp4", 60), tmp_path / "both.ts"
    parts = []
    for service in (1, 2):
        pids = {
            "mpegts_start_pid": str(256 * service),
            "mpegts_pmt_start_pid": str(1000 * service + 3000),
        }
        remux(source, tmp_path / "part.ts", options={**pids, "mpegts_service_id": str(service)})
        parts.append((tmp_path / "part.ts").read_bytes())
    path.write_bytes(b"".join(parts))
    words = r"cannot be read to its end \(another stream begins in the middle"
    with pytest.raises(DecodeError, match=words) as caught:
        open_video(path)
    assert caught.value.reason == "truncated"
