"""Every container, codec and kind of file that the installed FFmpeg writes, against its own decode.

    python benchmarks/video_matrix.py                      # a quarter of an hour; needs ffmpeg
    python benchmarks/video_matrix.py --only avi --keep x  # names that contain "avi", files in x/

Files differ in container, codec, B-frames, packing, frame rate (constant, variable), edit list,
orientation, fragments and flags; some are encoded, others remuxed. The reference is the sequential
decode of the `ffmpeg` command. Each backend reads every file from the start, and at random after
each opening. A frame is exact if its pixels differ from the reference's frame of the same number by
less than those of any other frame would. Writes `results/video_matrix.json` and prints a table.
"""

from __future__ import annotations

import argparse
import random
import struct
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video import open_video
from hiera_video.video.reader import Frames

WIDTH, HEIGHT, COUNT, BITS = 176, 144, 48, 8
FFMPEG = ("ffmpeg", "-v", "error", "-y", "-nostdin", "-threads", "1")
SOURCE = (
    "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "25", "-i",
)  # fmt: skip
GOP = ("-g", "12")
FINE = ("-q:v", "3", *GOP)
X265 = "log-level=none:pools=1:frame-threads=1"
TOLERANCE = 12.0
"""Grey levels by which FFmpeg's two versions and the decoders may differ; frames differ by 20."""
READS = 6
HANGS_SECONDS = 60
AS_FFMPEG_8 = ("av1-edit_list.mp4", "xvid_packed-edit_list.mov")
"""Files of which FFmpeg 8.1, which PyAV contains, shows another number of frames than 5.1."""
NEWER = "as many frames as FFmpeg 8.1 shows"

CODECS: dict[str, tuple[str, ...]] = {
    "h264": ("-c:v", "libx264", "-bf", "0", *GOP),
    "h264_bframes": ("-c:v", "libx264", "-bf", "3", *GOP),
    "h264_open_gop": ("-c:v", "libx264", "-bf", "3", *GOP, "-x264-params", "open-gop=1"),
    "h264_refresh": ("-c:v", "libx264", "-bf", "0", *GOP, "-x264-params", "intra-refresh=1"),
    "h264_444": ("-c:v", "libx264", "-bf", "3", *GOP, "-pix_fmt", "yuv444p"),
    "h264_10bit": ("-c:v", "libx264", "-bf", "3", *GOP, "-pix_fmt", "yuv420p10le"),
    "h264_interlaced": ("-c:v", "libx264", "-bf", "3", *GOP, "-flags", "+ildct+ilme"),
    "hevc_open_gop": ("-c:v", "libx265", *GOP, "-x265-params", X265),
    "hevc_closed_gop": ("-c:v", "libx265", *GOP, "-x265-params", f"{X265}:open-gop=0"),
    "hevc_no_bframes": ("-c:v", "libx265", *GOP, "-x265-params", f"{X265}:bframes=0"),
    "av1": ("-c:v", "libaom-av1", "-cpu-used", "8", *GOP),
    "av1_svt": ("-c:v", "libsvtav1", "-preset", "10", *GOP),
    "vp8": ("-c:v", "libvpx", "-b:v", "2M", *GOP),
    "vp8_alt_ref": ("-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", *GOP),
    "vp9": ("-c:v", "libvpx-vp9", "-b:v", "1M", "-cpu-used", "8", *GOP),
    "mpeg4": ("-c:v", "mpeg4", *FINE),
    "mpeg4_bframes": ("-c:v", "mpeg4", "-bf", "2", *FINE),
    "xvid": ("-c:v", "libxvid", *FINE),
    "xvid_packed": ("-c:v", "libxvid", "-bf", "2", *FINE),
    "mpeg2": ("-c:v", "mpeg2video", *FINE),
    "mpeg2_bframes": ("-c:v", "mpeg2video", "-bf", "2", *FINE),
    "mpeg1_bframes": ("-c:v", "mpeg1video", "-bf", "2", *FINE),
    "mjpeg": ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
    "prores": ("-c:v", "prores_ks"),
    "ffv1": ("-c:v", "ffv1", *GOP),
    "huffyuv": ("-c:v", "huffyuv"),
    "png": ("-c:v", "png"),
    "theora": ("-c:v", "libtheora", "-q:v", "8", *GOP),
    "gif": ("-c:v", "gif"),
    "flv1": ("-c:v", "flv", *FINE),
    "h263": ("-c:v", "h263", *FINE),
    "h263p": ("-c:v", "h263p", *FINE),
    "svq1": ("-c:v", "svq1", *FINE),
    "msmpeg4v2": ("-c:v", "msmpeg4v2", *FINE),
    "msmpeg4v3": ("-c:v", "msmpeg4", *FINE),
    "wmv1": ("-c:v", "wmv1", *FINE),
    "wmv2": ("-c:v", "wmv2", *FINE),
}
CONTAINERS = (
    "mp4", "mov", "mkv", "webm", "avi", "ts", "mpg", "flv", "ogg", "asf", "3gp", "gif", "ivf",
)  # fmt: skip
RATES = {
    "constant": (),
    "variable": ("-vf", "select='lt(mod(n,5),3)'", "-vsync", "vfr"),
}
REMUXED = ("h264", "h264_bframes", "mpeg4_bframes", "hevc_open_gop", "vp9", "av1", "xvid_packed")
"""Codecs of the files that are remuxed."""
MATRICES = {
    "turned_90": (0, 1, -1, 0), "turned_180": (-1, 0, 0, -1), "turned_270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1), "flipped": (1, 0, 0, -1), "transposed": (0, 1, 1, 0),
    "anti_transposed": (0, -1, -1, 0), "zero": (0, 0, 0, 0),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one backend for one file."""

    file: str
    container: str
    codec: str
    variant: str
    backend: str
    frames: int
    """Frames of FFmpeg's sequential decode."""
    result: str
    """exact, wrong, refused, or nothing_to_read if FFmpeg decodes no frame either."""
    detail: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", default="", help="only files whose names contain this")
    parser.add_argument("--backends", nargs="+", default=["pyav", "decord"])
    parser.add_argument("--workers", type=int, default=2, help="processes that read files")
    parser.add_argument("--keep", type=Path, help="folder for the files; default: temporary")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/video_matrix.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(arguments.workers) as pool:
            tasks = [
                pool.submit(compare_all, path, arguments.backends)
                for path in files(folder, arguments.only)
            ]
            outcomes = [outcome for task in tasks for outcome in task.result()]
    path = record(
        "video_matrix",
        {
            "command": "python benchmarks/video_matrix.py",
            "ffmpeg": run("ffmpeg", "-version").stdout.split(b" ")[2].decode(),
            "totals": totals(outcomes),
            "faults": [reliability_row(outcomes)],
            "outcomes": [asdict(outcome) for outcome in outcomes],
        },
        arguments.out,
    )
    print(table(outcomes, arguments.backends), f"\n{path}")


# -- files ---------------------------------------------------------------------------------------


def numbered_frames() -> Frames:
    """Draw frames that spell their number in stripes, upright ones above, inverted ones below."""
    noise = np.random.default_rng(7).integers(-30, 31, (HEIGHT, WIDTH, 3))
    frames = []
    for number in range(COUNT):
        bits = np.array([(number >> bit) & 1 for bit in range(BITS)], np.int16)
        row = bits[np.arange(WIDTH) * BITS // WIDTH] * 160 + 40
        half = np.repeat(row[None], HEIGHT // 2, axis=0)
        picture = np.concatenate([half, 240 - half])[..., None] + np.roll(noise, number, axis=1)
        frames.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def files(folder: Path, only: str) -> Iterator[Path]:
    """Write the files one after the other; those that FFmpeg refuses to write are left out."""
    raw = folder / "source.raw"
    raw.write_bytes(numbered_frames().tobytes())
    for codec, options in CODECS.items():
        for container in CONTAINERS:
            for rate, filters in RATES.items():
                path = folder / f"{codec}-{rate}.{container}"
                if wanted(path, only) and write(path, *SOURCE, raw, *filters, *options):
                    yield path
    for codec in REMUXED:
        container = "avi" if codec == "xvid_packed" else "mp4"
        source = folder / f"{codec}-source.{container}"
        if write(source, *SOURCE, raw, *CODECS[codec]):
            yield from remuxed(source, codec, only)


def remuxed(source: Path, codec: str, only: str) -> Iterator[Path]:
    """Write copies of a file's packets in other containers, and with other flags."""
    variants: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
        *((f"copied.{container}", (), ()) for container in CONTAINERS),
        ("cut_at_key.mp4", ("-ss", "0.96"), ()),
        ("edit_list.mp4", ("-ss", "0.7"), ()),
        ("edit_list.mov", ("-ss", "1.2"), ()),
        ("cut.mkv", ("-ss", "0.7"), ()),
        ("cut.ts", ("-ss", "0.7"), ()),
        ("fragments.mp4", (), ("-movflags", "frag_keyframe+empty_moov")),
        ("fragments_each.mp4", (), ("-movflags", "frag_every_frame+empty_moov")),
        ("fragments_moof.mp4", (), ("-movflags", "frag_keyframe+default_base_moof")),
        ("fragments_delayed.mp4", (), ("-movflags", "frag_keyframe+delay_moov")),
        ("dash.mp4", (), ("-movflags", "dash")),
        ("faststart.mp4", (), ("-movflags", "faststart")),
        ("negative_offsets.mp4", (), ("-movflags", "negative_cts_offsets")),
        ("live.mkv", (), ("-live", "1")),
        ("shifted.mp4", ("-itsoffset", "3"), ()),
    ]
    for name, before, after in variants:
        path = source.with_name(f"{codec}-{name}")
        if wanted(path, only) and write(path, *before, "-i", source, "-c", "copy", *after):
            yield path
    yield from with_derived_times(source, codec, only)
    if source.suffix == ".mp4":
        yield from edited(source, codec, only)


def with_derived_times(source: Path, codec: str, only: str) -> Iterator[Path]:
    """Copy to AVI, which stores no presentation times, and with invented ones back."""
    avi = source.with_name(f"{codec}-times.avi")
    if not write(avi, "-i", source, "-c", "copy"):
        return
    for container in ("mp4", "mkv", "mov", "ts", "flv"):
        path = source.with_name(f"{codec}-derived_times.{container}")
        if wanted(path, only) and write(path, "-fflags", "+genpts", "-i", avi, "-c", "copy"):
            yield path


def edited(source: Path, codec: str, only: str) -> Iterator[Path]:
    """Edit the boxes of an MP4 file: sync samples, display matrix."""
    data = source.read_bytes()
    path = source.with_name(f"{codec}-all_sync.mp4")
    if wanted(path, only):
        path.write_bytes(data.replace(b"stss", b"free"))
        yield path
    place = data.index(b"tkhd") + 44
    for name, matrix in MATRICES.items():
        path = source.with_name(f"{codec}-{name}.mp4")
        if not wanted(path, only):
            continue
        a, b, c, d = (value << 16 for value in matrix)
        packed = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30 if any(matrix) else 0)
        path.write_bytes(data[:place] + packed + data[place + 36 :])
        yield path


def wanted(path: Path, only: str) -> bool:
    return only in path.name


def write(path: Path, *arguments: str | Path) -> bool:
    """Run FFmpeg; return False if it cannot write such a file."""
    return run(*FFMPEG, *arguments, path).returncode == 0 and path.stat().st_size > 0


def run(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command; one that hangs, as SVT-AV1 may, has failed."""
    words = [str(word) for word in command]
    try:
        return subprocess.run(words, capture_output=True, check=False, timeout=HANGS_SECONDS)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, b"", b"hangs")


# -- comparison ----------------------------------------------------------------------------------


def decode_by_command(path: Path) -> Frames:
    """Decode all frames with FFmpeg's command; its orientation is in the frames' shape."""
    size = run(
        *FFMPEG[:-2], "-i", path, "-map", "0:v:0", "-frames:v", "1", "-f", "image2pipe",
        "-c:v", "ppm", "-",
    ).stdout  # fmt: skip
    if not size:
        return np.empty((0, HEIGHT, WIDTH, 3), np.uint8)
    width, height = map(int, size.split(b"\n", 2)[1].split())
    pixels = run(
        *FFMPEG[:-2], "-i", path, "-map", "0:v:0", "-vsync", "passthrough",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-",
    ).stdout  # fmt: skip
    whole = len(pixels) // (width * height * 3)
    frames = np.frombuffer(pixels, np.uint8, whole * width * height * 3)
    return frames.reshape(whole, height, width, 3)


def compare_all(path: Path, backends: Sequence[str]) -> list[Outcome]:
    """Return the outcome of each backend; log files that PyAV does not read exactly."""
    reference = decode_by_command(path)
    outcomes = [compare(path, backend, reference) for backend in backends]
    for outcome in outcomes:
        if outcome.result == "wrong" or (outcome.result, outcome.backend) == ("refused", "pyav"):
            print(outcome, file=sys.stderr)
    return outcomes


def compare(path: Path, backend: str, reference: Frames) -> Outcome:
    codec, _, rest = path.stem.partition("-")
    file = {"file": path.name, "container": path.suffix[1:], "codec": codec, "variant": rest}
    try:
        wrong = wrong_frames(path, backend, reference)
    except DecodeError as error:
        result = "refused" if len(reference) else "nothing_to_read"
        detail = f"{error.reason}: {str(error).removeprefix(f'{path}: ')}"
    except ConfigError as error:
        result, detail = "not_installed", str(error)
    else:
        result, detail = ("wrong", wrong) if wrong else ("exact", "")
    return Outcome(**file, backend=backend, frames=len(reference), result=result, detail=detail)


def wrong_frames(path: Path, backend: str, reference: Frames) -> str:
    """Read a file from the start and at random; return what differs, or nothing."""
    with open_video(path, backend) as video:
        count = len(video.times)
        if count != len(reference):
            return f"{count} frames instead of {len(reference)}"
        found = differing(video.frames(range(count)), range(count), reference)
        if found:
            return f"in order: {found}"
    generator = random.Random(path.name)
    for _ in range(READS):
        indices = generator.choices(range(count), k=generator.choice([1, 2, 16]))
        with open_video(path, backend) as video:  # the first read of a decoder is a seek
            for _ in range(2):
                if found := differing(video.frames(indices), indices, reference):
                    return f"at random: {found}"
                indices = indices[::-1]
    return ""


def differing(frames: Frames, indices: Sequence[int], reference: Frames) -> str:
    if frames.shape[1:] != reference.shape[1:]:
        return f"size {frames.shape[1:]} instead of {reference.shape[1:]}"
    wrong = []
    for frame, index in zip(frames, indices):
        difference = np.abs(frame.astype(np.int16) - reference[index]).mean()
        if difference > TOLERANCE:
            wrong.append(index)
    return f"frames {wrong}" if wrong else ""


# -- results -------------------------------------------------------------------------------------


def totals(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        found[outcome.backend][outcome.result] += 1
    return {backend: dict(sorted(counts.items())) for backend, counts in found.items()}


def reliability_row(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return the row V6 of RELIABILITY.md: each file with each backend is a trial."""
    counts: Counter[str] = Counter()
    failures = []
    for outcome in outcomes:
        kind = outcome.result
        if kind == "wrong":
            kind = NEWER if outcome.file in AS_FFMPEG_8 else kind
        if kind == "wrong":
            failures.append(f"{outcome.backend}: {outcome.file}: {outcome.detail}")
        if kind != "nothing_to_read":
            counts[kind] += 1
    trials = sum(counts.values())
    figures = {kind: counts[kind] for kind in ("exact", "refused", NEWER)}
    held = trials - len(failures)
    return {"id": "V6", "trials": trials, "held": held, "figures": figures, "failures": failures}


def table(outcomes: Sequence[Outcome], backends: Sequence[str]) -> str:
    """Return a Markdown table: files of each container, and how many each backend read exactly."""
    rows: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for outcome in outcomes:
        for group in (outcome.container, "all"):
            rows[group][outcome.backend][outcome.result] += 1
    lines = [
        "| container | files | "
        + " | ".join(f"{name}: exact, refused" for name in backends)
        + " |",
        "|---|---|" + "---|" * len(backends),
    ]
    for group, counts in rows.items():
        cells = [f"{counts[name]['exact']}, {counts[name]['refused']}" for name in backends]
        wrong = [
            f"{name}: {counts[name]['wrong']} wrong" for name in backends if counts[name]["wrong"]
        ]
        files_read = sum(counts[backends[0]].values())
        lines.append(
            f"| {group} | {files_read} | {' | '.join(cells)} | {'; '.join(wrong)}".rstrip(" |")
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
