"""RELIABILITY V1, V3, V4: exact frames of readable files, a reason for the rest, no hang or leak.

The environment variable `FAULTS=full` selects the counts of the nightly check.
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import BY_NAME, ENTRIES, READABLE, UNREADABLE, plain_decode
from corpus_makers import RECORDINGS

from hiera_video.errors import DecodeError
from hiera_video.video import open_video
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import REASONS

FULL = os.environ.get("FAULTS") == "full"
FUZZED = 10_000 if FULL else 300
PROBE = Path(__file__).with_name("probe.py")
DEADLINE_SECONDS = 5
MEMORY_KB = 500_000
WARM_KB = 2_000  # tables that the first use of a codec allocates
DECODED_FROM_START = {
    "gif.gif", "wmv2.asf", "size_changes.ts", "h264.avi",
    "derived_times.mp4", "derived_times.mkv", "packed.avi",
}  # fmt: skip
CAN_READ_ALL = os.geteuid() == 0  # root ignores permissions


def test_the_corpus_is_large_enough() -> None:
    assert len(ENTRIES) >= 60 and len(BY_NAME) == len(ENTRIES)
    assert len(READABLE) >= 40 and len(UNREADABLE) >= 20


@pytest.mark.parametrize("kept_bytes", [1 << 30, 0], ids=["in_memory", "seeking"])
@pytest.mark.parametrize("name", READABLE)
def test_every_frame_is_exact(
    corpus: dict[str, Path],
    videos: Any,
    name: str,
    kept_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry, path = BY_NAME[name], corpus[name]
    if name not in DECODED_FROM_START:
        monkeypatch.setattr(
            PyAVReader, "_decode_all", lambda self: pytest.fail("decoded from the start")
        )
    with PyAVReader(str(path), kept_bytes=kept_bytes) as reader:
        assert reader.info.num_frames == len(reader.times) == entry.count
        assert all(a < b for a, b in zip(reader.times, reader.times[1:]))
        in_order = reader.frames(range(len(reader.times)))
        if entry.numbers is not None:
            assert videos.numbers(in_order) == list(entry.numbers)
        if entry.exact:  # the plain loop may also show frames at the start that an edit list hides
            assert np.array_equal(in_order, plain_decode(path)[-len(in_order) :])
        generator = random.Random(name)
        for _ in range(8):  # repeated and out of order
            indices = generator.choices(range(len(in_order)), k=generator.choice([1, 3, 16]))
            frames = reader.frames(indices)
            assert np.array_equal(frames, in_order[indices])
            assert frames.flags.c_contiguous
        assert reader.frames([]).shape == (0, *in_order.shape[1:])


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files_have_a_reason(corpus: dict[str, Path], name: str) -> None:
    if name == "no_permission.mp4" and CAN_READ_ALL:
        pytest.skip("root may read everything; see test_pyav.test_a_file_without_permission")
    path = corpus[name]
    with pytest.raises(DecodeError) as caught, open_video(path) as video:
        video.frames(range(len(video.times)))
    assert caught.value.reason in BY_NAME[name].reasons
    assert str(caught.value).startswith(f"{path}: ")


def test_a_recording_that_ends_in_the_middle_of_a_frame(videos: Any, tmp_path: Path) -> None:
    """A page may get a recording without its end: the frames before it are exact."""
    data = (RECORDINGS / "recorded_vp8.webm").read_bytes()
    path = tmp_path / "cut.webm"
    counts = []
    for size in range(len(data) - 200, len(data), 7):
        path.write_bytes(data[:size])
        with open_video(path) as video:
            numbers = videos.numbers(video.frames(range(len(video.times))))
        assert numbers == [0, *range(24)][: len(numbers)]
        counts.append(len(numbers))
    assert counts == sorted(counts) and counts[0] >= 20 and counts[-1] == 24


class Probe:
    """Process that reads videos, so that a crash or a hang is its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROBE), "pyav"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def read(self, path: Path) -> dict[str, Any]:
        """Read a video and check the time and memory that it took."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_SECONDS + 60)
        assert ready, f"{path}: hangs"
        line = self.process.stdout.readline()
        assert line, f"{path}: ended the process with {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        assert answer["cpu_seconds"] < DEADLINE_SECONDS, (path, answer)
        assert answer["peak_kb"] < MEMORY_KB, (path, answer)
        return answer


@contextmanager
def probing() -> Iterator[Probe]:
    probe = Probe()
    try:
        yield probe
    finally:
        probe.process.kill()
        probe.process.communicate()


@pytest.mark.fault
def test_unreadable_files_take_less_than_five_seconds_and_500_mb(corpus: dict[str, Path]) -> None:
    with probing() as probe:
        for name in UNREADABLE:
            if name == "no_permission.mp4" and CAN_READ_ALL:
                continue
            assert probe.read(corpus[name])["reason"] in BY_NAME[name].reasons


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Apply 1 to 20 flips, overwrites, holes or deletions, half of them near the header."""
    edited = bytearray(data)
    for _ in range(generator.choice([1, 1, 2, 5, 20])):
        reach = generator.choice([200, len(edited)])
        place = generator.randrange(min(reach, len(edited)))
        length = generator.choice([1, 4, 16, 256])
        match generator.randrange(5):
            case 0:
                edited[place] ^= 1 << generator.randrange(8)
            case 1:
                edited[place : place + length] = generator.randbytes(length)
            case 2:
                edited[place : place + length] = bytes(length)
            case 3:
                edited[place : place + length] = b"\xff" * length
            case _:
                del edited[place : place + generator.choice([1, 7, 1000])]
        if not edited:
            return b"\0"
    return bytes(edited)


@pytest.mark.fault
def test_fuzzed_files_neither_crash_nor_hang(corpus: dict[str, Path], tmp_path: Path) -> None:
    sources = [corpus[name].read_bytes() for name in READABLE]
    reasons: Counter[str | None] = Counter()
    path = tmp_path / "fuzzed.mp4"
    with probing() as probe:
        for number in range(FUZZED):
            generator = random.Random(f"fuzz/{number}")
            path.write_bytes(mutate(generator.choice(sources), generator))
            reasons[probe.read(path)["reason"]] += 1
    assert set(reasons) <= {None, *REASONS}
    # the mutations are neither harmless nor all of one kind
    assert reasons[None] > FUZZED // 20 and len(reasons) >= 4, reasons


@pytest.mark.fault
def test_opening_leaks_neither_memory_nor_descriptors(corpus: dict[str, Path]) -> None:
    """Open and read 1,500 times, a third of them unreadable files."""
    good = ("h264_bframes.mp4", "h264.mkv", "vp9.webm", "trimmed_12.mp4")
    bad = ("truncated_50.mp4", "text.mp4", "hole.mp4", "damaged_moov.mp4")

    def usage() -> tuple[int, int, int]:
        status = Path("/proc/self/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        return resident, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    def read(times: int) -> None:
        for number in range(times):
            name = (bad if number % 3 == 2 else good)[number % 4]
            with suppress(DecodeError), open_video(corpus[name]) as video:
                video.frames([3])

    read(150)
    before = usage()
    read(1500)
    after = usage()
    assert after[0] - before[0] < 1500 + WARM_KB, (before, after)
    assert after[1:] == before[1:]


LIMITED = """
import resource, sys
import hiera_video.video.pyav
from hiera_video.errors import DecodeError
from hiera_video.video import open_video
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 500_000_000,) * 2)
for path in sys.argv[1:]:
    try:
        open_video(path)
    except DecodeError as error:
        print(error.reason)
"""


@pytest.mark.fault
def test_files_that_declare_much_open_in_little_memory(corpus: dict[str, Path]) -> None:
    """Issue I, 4.8: within 500 MB of address space."""
    names = ("lying_table.mp4", "lying_fragment.mp4", "many_streams.mp4", "many_streams.mkv")
    command = [sys.executable, "-c", LIMITED, *(str(corpus[name]) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["container", "container", "too_large", "too_large"]
