"""Generated videos: ordinary, odd but valid, unreadable. Pixels encode the frame number.

`ENTRIES` lists the files and the expected results of reading them; `make_all` writes them.
"""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from corpus_makers import (
    AV1,
    CLOSED_GOP,
    FINE,
    HEVC,
    UNEVEN,
    Entry,
    Write,
    all_marked_sync,
    audio_first,
    audio_only,
    bytes_of,
    cut,
    damaged_header,
    derived_times,
    edited,
    encrypted,
    flipped,
    hole,
    huge_gif,
    lying_count,
    lying_fragment,
    lying_size,
    lying_table,
    made,
    many_streams,
    no_permission,
    oriented,
    packed,
    recorded,
    remuxed,
    script,
    size_changes,
    stored,
    trimmed,
    truncated_gaps,
    unreadable_file,
    with_gaps,
    with_header_size,
    without_header,
    written,
)

DECORD, BOTH = ("decord",), ("decord", "torchcodec")
MPEG = {"gop": 12, "options": FINE}
MJPEG = {"codec": "mjpeg", "pixel_format": "yuvj420p", "bframes": 0, "options": FINE}
PNG_HEADER = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0"
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{inner}\n#EXT-X-ENDLIST\n"
ANY = ("container", "truncated", "corrupt", "no_frames", "codec", "no_video", "too_large")

ENTRIES: tuple[Entry, ...] = (
    # ordinary
    written("h264_bframes.mp4", gop=24, bframes=3),
    written("h264_plain.mp4", bframes=0),
    written("h264_all_keys.mp4", gop=1, bframes=0),
    written("h264_open_gop.mp4", refused_by=DECORD, gop=12, options={"x264-params": "open-gop=1"}),
    written("h264.mkv", gop=24),
    written("h264.mov", gop=24),
    written("h264.ts", refused_by=BOTH, gop=24),
    written("h264.flv", gop=24),
    written("h264_25fps.mp4", fps=25),
    written("hevc.mp4", refused_by=DECORD, codec="libx265", options=HEVC),  # open GOPs
    written("hevc.mkv", refused_by=DECORD, codec="libx265", gop=12, options=HEVC),
    written("hevc_closed_gop.mp4", codec="libx265", gop=12, options=CLOSED_GOP),
    written("vp8.webm", codec="libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "16"}),
    written("vp9.webm", codec="libvpx-vp9", gop=20),
    written("vp9.mp4", codec="libvpx-vp9", gop=20),
    written("vp9.ivf", refused_by=DECORD, codec="libvpx-vp9", gop=20),
    written("mpeg4.avi", refused_by=BOTH, codec="mpeg4", **MPEG),
    written("mpeg4.mp4", refused_by=DECORD, codec="mpeg4", **MPEG),
    written("mpeg4_plain.avi", refused_by=BOTH, codec="mpeg4", bframes=0, **MPEG),
    written("h264.avi", refused_by=("torchcodec",), gop=12, bframes=3),
    written("h264_plain.avi", refused_by=("torchcodec",), gop=12, bframes=0),
    made("derived_times.mp4", derived_times, BOTH),
    made("derived_times.mkv", derived_times, BOTH),
    made("packed.avi", packed, BOTH),
    made("gaps.avi", partial(with_gaps, codec="mpeg4", options=FINE), BOTH),
    made("gaps_h264.avi", with_gaps, ("torchcodec",)),
    made(
        "wrong_size.mp4",
        partial(with_header_size, sample_entry=b"av01", codec="libsvtav1", options=AV1),
        DECORD,
    ),
    made("all_sync_h264.mp4", all_marked_sync, DECORD),
    made("all_sync_mpeg4.mp4", partial(all_marked_sync, codec="mpeg4", options=FINE), BOTH),
    written("mpeg2.mpg", refused_by=BOTH, codec="mpeg2video", **MPEG),
    written("mpeg2.ts", refused_by=BOTH, codec="mpeg2video", **MPEG),
    written("mpeg1.mpg", refused_by=BOTH, codec="mpeg1video", **MPEG),
    written("mjpeg.avi", refused_by=BOTH, **MJPEG),
    written("mjpeg.mov", **MJPEG),
    written("ffv1.mkv", codec="ffv1", pixel_format="yuv420p", bframes=0),
    written("gif.gif", refused_by=DECORD, codec="gif", pixel_format="rgb8", bframes=0, fps=25),
    written("wmv2.asf", refused_by=DECORD, codec="wmv2", gop=12, bframes=0, options=FINE),
    remuxed("fragments.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    remuxed("live.mkv", {"live": "1"}, DECORD),
    recorded("recorded_vp8.webm", DECORD),
    recorded("recorded_vp9.webm", BOTH),
    recorded("recorded_av1.webm", BOTH),
    recorded("recorded_h264.mkv", DECORD),
    recorded("recorded_h264.mp4"),
    recorded("recorded_vp9.mp4", ("torchcodec",)),
    recorded("recorded_whole_vp8.webm", DECORD),
    stored("hidden_vp8.webm", tuple(number // 6 for number in range(48)), BOTH),
    # odd but valid
    written("one_frame.mp4", 1),
    written("two_frames.mp4", 2),
    written("odd_161x121.mp4", 12, numbered=False, width=161, height=121, pixel_format="yuv444p"),
    written("tiny_2x2.mp4", 12, refused_by=DECORD, numbered=False, width=2, height=2, bframes=0),
    written("h264_444.mp4", pixel_format="yuv444p", height=47),
    written("h264_10_bit.mp4", pixel_format="yuv420p10le"),
    written("grey.mp4", pixel_format="gray"),
    written("variable_rate_from_5s.mp4", times=UNEVEN),
    written("variable_rate_from_5s.mkv", times=UNEVEN),
    written("rotated_90.mp4", refused_by=DECORD, numbered=False, rotation=90),
    written("rotated_180.mp4", numbered=False, rotation=180),
    written("rotated_270.mp4", refused_by=DECORD, numbered=False, rotation=270),
    oriented("mirrored.mp4", (-1, 0, 0, 1), BOTH),
    oriented("transposed.mp4", (0, 1, 1, 0), BOTH),
    oriented("zero_matrix.mp4", (0, 0, 0, 0), ()),
    trimmed("trimmed_12.mp4", first=30, start=42, bframes=3, refused_by=BOTH),
    trimmed("trimmed_1.mp4", first=0, start=1, bframes=0, refused_by=BOTH),
    trimmed("trimmed_28.mp4", first=0, start=28, bframes=2, refused_by=DECORD),
    written("long_gop.mp4", 100, gop=250, bframes=4),
    Entry(name="audio_first.mp4", make=audio_first, numbers=tuple(range(40)), count=40),
    Entry(
        name="size_changes.ts", make=size_changes, numbers=(*range(20), *range(20)), count=40,
        exact=False, refused_by=frozenset(BOTH),
    ),
    Entry(name="lying_size.mp4", make=edited(lying_size), numbers=tuple(range(100)), count=100),
    # unreadable
    unreadable_file("empty.mp4", bytes_of(b""), "empty"),
    unreadable_file("encrypted.mp4", encrypted, "encrypted"),
    unreadable_file("text.mp4", bytes_of(b"hello, I am not a video\n" * 100), "container"),
    unreadable_file("random.mp4", bytes_of(random.Random(0).randbytes(5000)), "container"),
    unreadable_file("picture.mp4", bytes_of(PNG_HEADER), "container"),
    *(
        unreadable_file(
            f"truncated_{int(share * 100)}{suffix}", edited(cut(share), **options), "truncated"
        )
        for suffix, options in (
            (".mp4", {}), (".mkv", {}), (".avi", {"codec": "mpeg4", "options": FINE}),
        )
        for share in (0.1, 0.5, 0.9)
    ),
    unreadable_file("truncated_gaps.avi", truncated_gaps, "truncated"),
    unreadable_file("no_moov.mp4", edited(without_header), "container"),
    unreadable_file("damaged_moov.mp4", edited(damaged_header), *ANY),
    *(
        unreadable_file(f"bit_flips_{seed}.mp4", edited(flipped(seed)), "corrupt")
        for seed in range(3)
    ),
    unreadable_file("hole.mp4", edited(hole), "corrupt"),
    unreadable_file("audio_only.mp4", audio_only, "no_video"),
    unreadable_file("folder.mp4", lambda path, write: path.mkdir(), "not_a_file"),
    unreadable_file("pipe.mp4", lambda path, write: os.mkfifo(path), "not_a_file"),
    unreadable_file("no_permission.mp4", no_permission, "permission"),
    unreadable_file("playlist.mp4", script(PLAYLIST), "container"),
    unreadable_file("ffconcat.mp4", script("ffconcat version 1.0\nfile {name}\n"), "container"),
    unreadable_file("huge_picture.gif", huge_gif, "too_large", "container"),
    unreadable_file("lying_count.mp4", edited(lying_count), *ANY),
    unreadable_file("lying_table.mp4", edited(lying_table), "container"),
    unreadable_file("lying_fragment.mp4", lying_fragment, "container"),
    unreadable_file("many_streams.mp4", many_streams, "too_large"),
    unreadable_file("many_streams.mkv", many_streams, "too_large"),
    unreadable_file("gone.mp4", lambda path, write: None, "missing"),
)  # fmt: skip
BY_NAME = {entry.name: entry for entry in ENTRIES}
READABLE = [entry.name for entry in ENTRIES if not entry.reasons]
UNREADABLE = [entry.name for entry in ENTRIES if entry.reasons]


def plain_decode(path: Path) -> Any:
    """Decode all frames with PyAV's own loop and rotate them upright: uint8 [T, H, W, 3]."""
    with av.open(str(path)) as container:
        frames = [
            np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            for frame in container.decode(video=0)
        ]
    return np.stack(frames)


def make_all(folder: Path, write: Write) -> dict[str, Path]:
    """Write every file into a folder of its own, beside its sources; return the paths by name."""
    paths = {}
    for entry in ENTRIES:
        path = paths[entry.name] = folder / entry.name.replace(".", "_") / entry.name
        path.parent.mkdir(parents=True)
        entry.make(path, write)
    return paths
