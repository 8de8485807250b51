"""RELIABILITY V1, V3, V4: exact frames of everything that can be read, a reason for the rest, no hang, crash or leak.

Set `FAULTS=full` for the counts of the nightly check.
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from corpus import BROKEN, BY_NAME, ENTRIES, READABLE, remux

from hiera_video.errors import DecodeError
from hiera_video.video import open_video
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import REASONS

FULL = os.environ.get("FAULTS") == "full"
FUZZED = 10_000 if FULL else 300
PROBE = Path(__file__).with_name("probe.py")
DEADLINE_SECONDS = 5
MEMORY_KB = 500_000
WARM_KB = 2_000  # tables that a first use of a codec makes


def test_the_corpus_is_large_enough() -> None:
    assert len(ENTRIES) >= 60 and len(BY_NAME) == len(ENTRIES)
    assert len(READABLE) >= 40 and len(BROKEN) >= 20


def plain_decode(path: Path) -> Any:
    """All frames, upright, by PyAV's own loop."""
    with av.open(str(path)) as container:
        frames = [
            (frame.to_ndarray(format="rgb24"), frame.rotation)
            for frame in container.decode(video=0)
        ]
    return np.stack([np.rot90(picture, rotation // 90) for picture, rotation in frames])


@pytest.mark.parametrize("kept_bytes", [1 << 30, 0], ids=["in_memory", "seeking"])
@pytest.mark.parametrize("name", READABLE)
def test_every_frame_is_exact(
    corpus: dict[str, Path], videos: Any, name: str, kept_bytes: int
) -> None:
    entry, path = BY_NAME[name], corpus[name]
    with PyAVReader(str(path), kept_bytes=kept_bytes) as reader:
        assert reader.info.num_frames == len(reader.times) == entry.count
        assert all(a < b for a, b in zip(reader.times, reader.times[1:]))
        in_order = reader.frames(range(len(reader.times)))
        if entry.numbers is not None:
            assert videos.numbers(in_order) == list(entry.numbers)
        if (
            entry.exact
        ):  # what an edit list hides, the plain loop shows or not: the last frames are the same
            assert np.array_equal(in_order, plain_decode(path)[-len(in_order) :])
        generator = random.Random(name)
        for _ in range(5):
            indices = generator.choices(range(len(in_order)), k=generator.choice([1, 3, 16]))
            assert np.array_equal(reader.frames(indices), in_order[indices])


# -- files that are broken, in a process of their own ------------------------------------------------------------------


class Probe:
    def __init__(self, backend: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROBE), backend],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1,
        )  # fmt: skip

    def read(self, path: Path) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        ready, _, _ = select.select(
            [self.process.stdout], [], [], DEADLINE_SECONDS + 30
        )  # its own clock counts
        assert ready, f"{path}: hangs"
        line = self.process.stdout.readline()
        assert line, f"{path}: ended the process with {self.process.wait()}"
        return json.loads(line)  # type: ignore[no-any-return]


@contextmanager
def probing(backend: str = "pyav") -> Iterator[Probe]:
    probe = Probe(backend)
    try:
        yield probe
    finally:
        probe.process.kill()
        probe.process.communicate()


def test_broken_files_have_a_reason_within_five_seconds_and_500_mb(
    corpus: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with probing() as probe:
        for name in BROKEN:
            if name == "no_permission.mp4" and os.geteuid() == 0:
                continue  # root may read everything: below
            answer = probe.read(corpus[name])
            assert answer["reason"] in BY_NAME[name].reasons, (name, answer)
            assert answer["seconds"] < DEADLINE_SECONDS and answer["peak_kb"] < MEMORY_KB, (
                name,
                answer,
            )
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DecodeError, match="permission denied") as caught:
        open_video(corpus["no_permission.mp4"])
    assert caught.value.reason == "permission"


def mutate(data: bytes, generator: random.Random) -> bytes:
    """One to twenty edits: flips, overwrites, holes, cuts, repeats; half of them near the start, where headers are."""
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


def test_fuzzed_files_neither_crash_nor_hang(corpus: dict[str, Path], tmp_path: Path) -> None:
    sources = [corpus[name].read_bytes() for name in READABLE]
    reasons: Counter[str | None] = Counter()
    path = tmp_path / "fuzzed.mp4"
    with probing() as probe:
        for number in range(FUZZED):
            generator = random.Random(f"fuzz/{number}")
            path.write_bytes(mutate(generator.choice(sources), generator))
            answer = probe.read(path)
            assert answer["seconds"] < DEADLINE_SECONDS and answer["peak_kb"] < MEMORY_KB, (
                number,
                answer,
            )
            reasons[answer["reason"]] += 1
    assert set(reasons) <= {None, *REASONS}
    assert reasons[None] > FUZZED // 20 and len(reasons) >= 4, (
        reasons
    )  # neither harmless nor all of one kind


def test_opening_leaves_nothing_behind(corpus: dict[str, Path]) -> None:
    """1,500 opens and reads, a third of them of broken files."""
    good = [
        str(corpus[name]) for name in ("h264_bframes.mp4", "h264.mkv", "vp9.webm", "trimmed_12.mp4")
    ]
    bad = [
        str(corpus[name])
        for name in ("truncated_50.mp4", "text.mp4", "hole.mp4", "damaged_moov.mp4")
    ]

    def facts() -> tuple[int, int, int]:
        status = Path("/proc/self/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        return resident, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    def read(times: int) -> None:
        for number in range(times):
            path = (bad if number % 3 == 2 else good)[number % 4]
            try:
                with open_video(path) as video:
                    video.frames([3])
            except DecodeError:
                pass

    read(150)
    before = facts()
    read(1500)
    after = facts()
    assert after[0] - before[0] < 1500 + WARM_KB, (before, after)
    assert after[1:] == before[1:]


def test_a_recording_that_goes_over_into_another_programme_is_told(
    videos: Any, tmp_path: Path
) -> None:
    """`cat a.ts b.ts`: what follows is another stream, which PyAV fails at with an `IndexError`."""
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
    with pytest.raises(
        DecodeError, match=r"cannot be read to its end \(another stream begins in the middle"
    ) as caught:
        open_video(path)
    assert caught.value.reason == "truncated"
