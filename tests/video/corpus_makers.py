"""Makers of the corpus's files: they write a video, then reorder, damage or lie about its bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

FINE = {"qmin": "1", "qmax": "3"}
AV1 = {"svtav1-params": "lp=1"}
HEVC = {"x265-params": "log-level=none:pools=none:frame-threads=1"}
CLOSED_GOP = {"x265-params": HEVC["x265-params"] + ":open-gop=0"}
UNEVEN = [5 + i / 30 + (0.012 if i % 3 else 0.0) for i in range(40)]
Write = Callable[..., Path]
"""`write(path, count, **options of write_video)`."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of the corpus."""

    name: str
    make: Callable[[Path, Write], None]
    numbers: tuple[int, ...] | None = None
    """Numbers that the frames encode; None if they encode none, or the file is unreadable."""
    count: int | None = None
    """Number of frames; None if the file is unreadable."""
    reasons: frozenset[str] = field(default_factory=frozenset)
    """Accepted reasons for which the file is unreadable; empty if it is readable."""
    exact: bool = True
    """False if a plain decode of all frames differs by design in sizes or number."""
    refused_by: frozenset[str] = field(default_factory=frozenset)
    """Backends that get the file wrong and so must refuse it."""


def written(
    name: str,
    count: int = 40,
    *,
    numbered: bool = True,
    refused_by: tuple[str, ...] = (),
    **options: Any,
) -> Entry:
    return Entry(
        name=name,
        make=lambda path, write: write(path, count, **options) and None,
        numbers=tuple(range(count)) if numbered else None,
        count=count,
        refused_by=frozenset(refused_by),
    )


def remux(
    source: Path,
    target: Path,
    *,
    options: dict[str, str] | None = None,
    first: int = 0,
    start: int = 0,
) -> None:
    """Copy packets from key frame `first` on; an edit list hides the frames before `start`."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options or {}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        tick = 512  # 1/15360 s a tick at 30 fps
        for packet in old.demux(stream):
            if packet.dts is None or packet.pts < first * tick:
                continue
            if start:
                packet.pts, packet.dts = packet.pts - start * tick, packet.dts - start * tick
            packet.stream = copy
            new.mux(packet)


def remuxed(name: str, options: dict[str, str], refused_by: tuple[str, ...] = ()) -> Entry:
    def make(path: Path, write: Write) -> None:
        remux(write(path.with_name("source.mp4"), 40, gop=12), path, options=options)

    return Entry(
        name=name, make=make, numbers=tuple(range(40)), count=40, refused_by=frozenset(refused_by)
    )


RECORDINGS = Path(__file__).with_name("recordings")
"""Files of Chromium 156's MediaRecorder (`recorded_…`): a canvas of 64x48 that shows 0, then 0 to
23. Without duration and table of frames, as a page gets them in parts; `recorded_whole_…` came in
one part. `hidden_vp8.webm`: 48 frames by FFmpeg in two passes, and one that is not shown."""


def stored(name: str, numbers: tuple[int, ...], refused_by: tuple[str, ...] = ()) -> Entry:
    return Entry(
        name=name,
        make=lambda path, write: path.write_bytes((RECORDINGS / name).read_bytes()) and None,
        numbers=numbers,
        count=len(numbers),
        refused_by=frozenset(refused_by),
    )


def recorded(name: str, refused_by: tuple[str, ...] = ()) -> Entry:
    return stored(name, (0, *range(24)), refused_by)


def derived_times(path: Path, write: Write) -> None:
    """Copy an AVI file of H.264 with B-frames, and the times that FFmpeg derives for it."""
    remux(write(path.with_name("source.avi"), 40, gop=12, bframes=3), path)


def with_gaps(path: Path, write: Write, **options: Any) -> Path:
    """Show each frame for three; the AVI muxer writes two empty chunks after each."""
    source = write(path.with_name("source.avi"), 40, bframes=0, gop=12, **options)
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = (packet for packet in old.demux(stream) if packet.size)
        for number, packet in enumerate(packets):
            packet.dts = packet.pts = 3 * number
            packet.time_base, packet.stream = 1 / stream.average_rate, copy
            new.mux(packet)
    return path


def all_marked_sync(path: Path, write: Write, **options: Any) -> None:
    """Without its table of sync samples, an MP4 file says that every sample is one."""
    data = write(path.with_name("source.mp4"), 40, gop=12, **options).read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))


def with_header_size(path: Path, write: Write, *, sample_entry: bytes, **options: Any) -> None:
    """Write 1920x1080 into the container's header of a stream of 64x48 pixels."""
    data = bytearray(write(path.with_name("source.mp4"), 40, **options).read_bytes())
    place = data.rindex(sample_entry) + 28
    assert data[place : place + 4] == struct.pack(">HH", 64, 48)
    data[place : place + 4] = struct.pack(">HH", 1920, 1080)
    path.write_bytes(data)


def with_matrix(path: Path, write: Write, *, matrix: tuple[int, int, int, int]) -> None:
    """Set a, b, c, d of the display matrix of ISO 14496-12."""
    data = bytearray(write(path.with_name("source.mp4"), 40).read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def oriented(name: str, matrix: tuple[int, int, int, int], refused_by: tuple[str, ...]) -> Entry:
    return Entry(
        name=name, make=partial(with_matrix, matrix=matrix), count=40, exact=False,
        refused_by=frozenset(refused_by),
    )  # fmt: skip


def encrypted(path: Path, write: Write) -> None:
    key = {"encryption_key": "00112233445566778899aabbccddeeff", "encryption_kid": "01" * 16}
    options = {"encryption_scheme": "cenc-aes-ctr", **key}
    remux(write(path.with_name("source.mp4"), 40), path, options=options)


PLACEHOLDER = bytes.fromhex("000001b6 51cf")
"""MPEG-4 VOP that is not coded."""


def packed(path: Path, write: Write) -> None:
    """Pack B-frames as Xvid and DivX do: into the packet of the reference that they follow.

    A placeholder, flagged as key frame, stands for the packet that went missing.
    """
    source = write(path.with_name("source.avi"), 40, codec="mpeg4", gop=12, bframes=1, options=FINE)
    chunks: list[tuple[bytes, bool]] = []
    with av.open(str(source)) as old:
        stream = old.streams.video[0]
        for packet in old.demux(stream):
            data = bytes(packet)
            place = data.find(b"\0\0\1\xb6")
            if packet.size == 0:
                continue
            if data[place + 4] >> 6 == 2:
                chunks[-1] = (chunks[-1][0] + data, chunks[-1][1])
                chunks.append((PLACEHOLDER, True))
                continue
            if packet.is_keyframe:  # the decoder's sign of packing
                data = data[:place] + b"\0\0\1\xb2DivX503b1393p" + data[place:]
            chunks.append((data, packet.is_keyframe))
        with av.open(str(path), "w") as new:
            copy = new.add_stream_from_template(stream)
            for number, (data, is_key) in enumerate(chunks):
                packet = av.Packet(data)
                packet.dts = packet.pts = number
                packet.time_base, packet.stream, packet.is_keyframe = (
                    1 / stream.average_rate,
                    copy,
                    is_key,
                )
                new.mux(packet)


def made(
    name: str, make: Callable[[Path, Write], None], refused_by: tuple[str, ...], count: int = 40
) -> Entry:
    return Entry(
        name=name, make=make, numbers=tuple(range(count)), count=count,
        refused_by=frozenset(refused_by),
    )  # fmt: skip


def trimmed(
    name: str, *, first: int, start: int, bframes: int, refused_by: tuple[str, ...]
) -> Entry:
    def make(path: Path, write: Write) -> None:
        source = write(path.with_name("source.mp4"), 90, gop=30, bframes=bframes)
        remux(source, path, first=first, start=start)

    numbers = tuple(range(start, 90))
    return Entry(
        name=name, make=make, numbers=numbers, count=len(numbers), refused_by=frozenset(refused_by)
    )


def mux_sound(container: Any, stream: Any) -> None:
    samples = av.AudioFrame.from_ndarray(
        np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
    )
    samples.sample_rate = 16000
    for frame in (samples, None):
        container.mux(stream.encode(frame))


def audio_first(path: Path, write: Write) -> None:
    with (
        av.open(str(write(path.with_name("source.mp4"), 40))) as old,
        av.open(str(path), "w") as new,
    ):
        audio = new.add_stream("aac", rate=16000, layout="mono")
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        mux_sound(new, audio)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)


def audio_only(path: Path, write: Write) -> None:
    with av.open(str(path), "w") as container:
        mux_sound(container, container.add_stream("aac", rate=16000, layout="mono"))


def size_changes(path: Path, write: Write) -> None:
    """Concatenate two transport streams, as recorded when the frame size changes."""
    parts = [
        write(path.with_name(f"part{i}.ts"), 20, gop=10, bframes=0, width=width, height=height,
              times=[2.0 * i + frame / 30 for frame in range(20)])
        for i, (width, height) in enumerate(((64, 48), (128, 96)))
    ]  # fmt: skip
    path.write_bytes(b"".join(part.read_bytes() for part in parts))


def unreadable_file(name: str, make: Callable[[Path, Write], None], *reasons: str) -> Entry:
    return Entry(name=name, make=make, reasons=frozenset(reasons))


def bytes_of(content: bytes) -> Callable[[Path, Write], None]:
    return lambda path, write: path.write_bytes(content) and None


def edited(edit: Callable[[bytearray], bytes], **options: Any) -> Callable[[Path, Write], None]:
    """Return a maker of a readable file with its bytes edited."""

    def make(path: Path, write: Write) -> None:
        suffix = path.suffix
        source = write(path.with_name(f"source{suffix}"), 100, **{"gop": 24, **options})
        if suffix == ".mp4":  # header first, so that a cut removes frames
            fast = path.with_name("faststart.mp4")
            remux(source, fast, options={"movflags": "faststart"})
            source = fast
        path.write_bytes(edit(bytearray(source.read_bytes())))

    return make


def cut(share: float) -> Callable[[bytearray], bytes]:
    return lambda data: bytes(data[: int(len(data) * share)])


def truncated_gaps(path: Path, write: Write) -> None:
    data = with_gaps(path.with_name("whole.avi"), write).read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])


def without_header(data: bytearray) -> bytes:
    place = data.index(b"moov")
    data[place : place + 4] = b"xxxx"
    return bytes(data)


def damaged_header(data: bytearray) -> bytes:
    place = data.index(b"stsz")
    data[place - 40 : place + 40] = random.Random(0).randbytes(80)
    return bytes(data)


def hole(data: bytearray) -> bytes:
    start = data.index(b"mdat") + 4
    size = len(data) - start
    data[start + size // 3 : start + size // 3 * 2] = bytes(size // 3)
    return bytes(data)


def flipped(seed: int) -> Callable[[bytearray], bytes]:
    def flip(data: bytearray) -> bytes:
        generator = random.Random(seed)
        for _ in range(60):
            data[generator.randrange(data.index(b"mdat") + 4, len(data))] ^= (
                1 << generator.randrange(8)
            )
        return bytes(data)

    return flip


def lying_count(data: bytearray) -> bytes:
    """Make the sample table promise a hundred million packets."""
    place = data.index(b"stsz") + 12
    data[place : place + 4] = struct.pack(">I", 100_000_000)
    return bytes(data)


def lying_table(data: bytearray) -> bytes:
    """Declare 80 million samples of one byte, which take no table."""
    place = data.index(b"stsz") + 8
    data[place : place + 8] = struct.pack(">II", 1, 80_000_000)
    place = data.index(b"stsc") + 16
    data[place : place + 4] = struct.pack(">I", 80_000_000)
    return bytes(data)


def lying_fragment(path: Path, write: Write) -> None:
    """Declare 80 million samples in a fragment that describes none of them."""
    fragments = path.with_name("fragments.mp4")
    options = {"movflags": "frag_keyframe+empty_moov"}
    remux(write(path.with_name("source.mp4"), 40, gop=12), fragments, options=options)
    data = bytearray(fragments.read_bytes())
    place = data.index(b"trun") + 4
    data[place : place + 8] = struct.pack(">II", 1, 80_000_000)
    path.write_bytes(data)


def many_streams(path: Path, write: Write) -> None:
    """Repeat the stream of a video 150 times."""
    source = write(path.with_name(f"source{path.suffix}"), 3, bframes=0)
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        packets = [packet for packet in old.demux(video=0) if packet.size]
        copies = [new.add_stream_from_template(old.streams.video[0]) for _ in range(150)]
        for packet in packets:
            pts, base = packet.pts, packet.time_base
            for copy in copies:
                packet.pts = packet.dts = pts
                packet.time_base, packet.stream = base, copy
                new.mux(packet)


def lying_size(data: bytearray) -> bytes:
    """Make the sample entry claim 60000 x 60000 pixels."""
    place = data.index(b"avc1") + 28
    data[place : place + 4] = struct.pack(">HH", 60000, 60000)
    return bytes(data)


def huge_gif(path: Path, write: Write) -> None:
    data = bytearray(
        write(
            path.with_name("source.gif"), 5, codec="gif", pixel_format="rgb8", bframes=0, fps=25
        ).read_bytes()
    )
    data[6:10] = struct.pack("<HH", 65000, 65000)
    path.write_bytes(data)


def script(text: str) -> Callable[[Path, Write], None]:
    def make(path: Path, write: Write) -> None:
        inner = write(path.with_name("inner.mp4"), 5)
        path.write_text(text.format(inner=inner, name=inner.name))

    return make


def no_permission(path: Path, write: Write) -> None:
    write(path, 5).chmod(0)
