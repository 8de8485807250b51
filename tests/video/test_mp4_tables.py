"""Declared samples and streams of MP4 files, checked before FFmpeg reads them (issue I, 4.8)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from hiera_video.errors import DecodeError
from hiera_video.video import open_video
from hiera_video.video.mp4_tables import DeclaredCounts
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def track(*boxes: bytes, handler: bytes = b"vide") -> bytes:
    return box(b"trak", box(b"mdia", box(b"hdlr", numbers(0, 0), handler, numbers(0)), *boxes))


def check(*boxes: bytes, size: int = 4096, limits: Limits | None = None) -> None:
    data = box(b"ftyp", b"isom") + box(b"moov", *boxes)
    data += box(b"mdat", bytes(size - len(data) - 8))

    def read(count: int, offset: int) -> tuple[bytes, int]:
        return data[offset : offset + count], len(data)

    DeclaredCounts("a.mp4", read, limits or Limits()).check()


def constant_size(samples: int) -> bytes:
    return box(b"stsz", numbers(0, 1, samples))


LYING = "its header declares 80000000 samples in a file of 4096 bytes; download or create"


@pytest.mark.parametrize(
    "boxes",
    [
        (track(constant_size(80_000_000)),),
        (track(box(b"stz2", numbers(0, 4, 80_000_000))),),
        (track(box(b"ctts", numbers(0, 1, 80_000_000, 1))),),
        (track(box(b"ctts", numbers(0, 80_000_000))),),
        (track(box(b"sbgp", numbers(0, 0, 1, 80_000_000, 1))),),
        (track(constant_size(10)), track(constant_size(80_000_000))),
        (box(b"moof", box(b"traf", box(b"trun", numbers(1, 80_000_000, 0)))),),
        tuple(
            box(b"moof", box(b"traf", box(b"trun", numbers(1, count, 0))))
            for count in (4_000, 79_996_000)
        ),
        (box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", numbers(9), zlib.compress(
            box(b"moov", track(constant_size(80_000_000)))
        ))),),
    ],
)  # fmt: skip
def test_more_samples_than_bytes_are_refused(boxes: tuple[bytes, ...]) -> None:
    with pytest.raises(DecodeError, match=LYING) as caught:
        check(*boxes)
    assert caught.value.reason == "container"


def test_samples_of_sound_are_counted_as_ffmpeg_joins_them() -> None:
    """Two seconds of compressed QuickTime sound: more samples than bytes, but few packets."""
    tables = (box(b"stts", numbers(0, 1, 88_200, 1)), constant_size(88_200))
    chunks = box(b"stsc", numbers(0, 1, 1, 22_050, 1)), box(b"stco", numbers(0, 4, 0, 0, 0, 0))
    check(track(*tables, *chunks, handler=b"soun"))  # 88,200 / 160 = 551 packets
    with pytest.raises(DecodeError, match="declares 88200 samples in a file of 4096 bytes"):
        check(track(*tables, *chunks, handler=b"vide"))


def test_limits_on_samples_streams_and_nesting() -> None:
    few = Limits(max_packets=500, max_streams=2)
    check(track(constant_size(500)), track(), limits=few)
    with pytest.raises(DecodeError, match="501 samples are over the limit of 500; split") as caught:
        check(track(constant_size(501)), limits=few)
    assert caught.value.reason == "too_large"
    with pytest.raises(DecodeError, match="has more than 2 streams; copy those that are needed"):
        check(track(), track(), track(), limits=few)
    nested = b""
    for _ in range(20):
        nested = box(b"moov", nested)
    with pytest.raises(DecodeError, match="its boxes nest deeper than 16"):
        check(nested)


def test_compressed_headers_are_bounded() -> None:
    bomb = zlib.compress(bytes(65 << 20), 9)
    with pytest.raises(DecodeError, match="compressed header takes more than 64 MiB"):
        check(box(b"cmov", box(b"cmvd", numbers(9), bomb)), size=100_000)
    check(box(b"cmov", box(b"cmvd", numbers(9), b"no zlib stream")))


def test_other_formats_and_damaged_boxes_are_left_to_ffmpeg() -> None:
    longest = b"\0\0\0\1moov" + b"\xff" * 8
    for data in (b"", b"RIFF\0\0\0\0AVI LIST", bytes(100), longest, bytes(3)):

        def read(count: int, offset: int, data: bytes = data) -> tuple[bytes, int]:
            return data[offset : offset + count], len(data)

        DeclaredCounts("a", read, Limits()).check()


def test_streams_over_the_limit_are_refused_in_every_container(
    corpus: dict[str, Path], videos: Any
) -> None:
    for name in ("many_streams.mkv", "many_streams.mp4"):
        with pytest.raises(DecodeError, match="has more than 100 streams") as caught:
            open_video(corpus[name])
        assert caught.value.reason == "too_large"
    with PyAVReader(str(corpus["many_streams.mkv"]), limits=Limits(max_streams=150)) as video:
        assert len(video.times) == 3
