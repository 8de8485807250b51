"""Workers that die, hang or crash (RELIABILITY V5, W1): the run goes on, with the same numbers.

Set `FAULTS=full` for the counts of the nightly check.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.data import dataset as dataset_module
from hiera_video.data.dataset import TestViews, TrainClips, UnreadableVideo, VideoViews
from hiera_video.data.loading.loader import BatchPlan, test_loader, train_loader
from hiera_video.data.loading.pool import DEATHS, WorkerPool
from hiera_video.data.loading.quarantine import OnOpen, Quarantine, QuarantinePolicy
from hiera_video.data.loading.shared_memory import receive, send
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.errors import DecodeError, WorkerError

FULL = os.environ.get("FAULTS") == "full"
CLIP = ClipConfig(num_frames=4, frame_stride=2)


def small(frames: Any, generator: random.Random) -> torch.Tensor:
    clip = (
        torch.from_numpy(np.ascontiguousarray(frames[:, ::8, ::8])).permute(3, 0, 1, 2).float()
        / 255
    )
    return clip + generator.random()


class one_view:
    @staticmethod
    def views_of(frames: Any, clips: list[list[int]]) -> Crops:
        shown = torch.stack([small(frames[clip], random.Random(0)) for clip in clips])
        return Crops(clips=shown, boxes=((0, 0, *shown.shape[-2:]),))


@pytest.fixture(scope="module")
def manifest(shared_videos: Any) -> Manifest:
    for i in range(8):
        shared_videos.write(f"pool/{i}.mp4", 12)
    listing = shared_videos.folder / "pool/list.csv"
    listing.write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(8)))
    return read_manifest(str(listing))


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def hang_holding_the_lock(*_: Any) -> None:
    """A decoder's worst: no Python runs in this process any more, and SIGTERM is ignored (as in every worker)."""
    ctypes.PyDLL(None).sleep(1000)


def crash() -> None:
    faulthandler.disable()  # pytest's, which would print this process's life
    os.kill(os.getpid(), signal.SIGSEGV)


def misbehave_at(monkeypatch: pytest.MonkeyPatch, path: str, how: Any) -> None:
    """Forked workers inherit it."""
    opened = dataset_module.open_video

    def open_video(name: str, backend: Any = "pyav") -> Any:
        if name == path:
            how()
        return opened(name, backend)

    monkeypatch.setattr(dataset_module, "open_video", open_video)


# -- a decoder that hangs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", range(10 if FULL else 1))
def test_a_hung_decoder_is_killed_and_its_file_quarantined(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    deadline, bad = 1.0, manifest.records[attempt % 8].path
    quarantine = QuarantinePolicy(
        deadline_seconds=deadline, file=str(tmp_path / "run" / "quarantine.jsonl")
    )
    plan = BatchPlan(num_records=8, batch_size=4, seed=attempt)
    killed: list[float] = []
    add = Quarantine.add
    with monkeypatch.context() as patch:
        misbehave_at(patch, bad, hang_holding_the_lock)
        patch.setattr(
            Quarantine, "add", lambda *args: killed.append(time.monotonic()) or add(*args)
        )
        clips = TrainClips(manifest, CLIP, small, seed=0, quarantine=quarantine)
        began = time.monotonic()
        steps = [
            step[0]
            for step in train_loader(
                clips, plan, first_step=0, last_step=6, workers=2, context="fork"
            )
        ]
    assert len(killed) == 1 and killed[0] - began < deadline + 2
    substituted = [pair for batch in steps for pair in batch.substituted]
    assert len(substituted) >= 3 and set(substituted) == {(bad, "hung")}  # in each of three passes
    entries = [json.loads(line) for line in Path(quarantine.file or "").read_text().splitlines()]
    assert [(entry["path"], entry["reason"]) for entry in entries] == [(bad, "hung")]
    assert "data.deadline_seconds=1; it was killed" in entries[0]["message"] and entries[0][
        "time"
    ].startswith("20")
    # a restart, here without workers, knows the file and sees the same data
    again = TrainClips(manifest, CLIP, small, seed=0, quarantine=quarantine)
    for batch, step in zip(steps, train_loader(again, plan, first_step=0, last_step=6, workers=0)):
        assert torch.equal(batch.clips, step[0].clips) and batch.substituted == step[0].substituted


def test_a_hung_decoder_in_a_test_is_a_broken_video(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    misbehave_at(monkeypatch, manifest.records[2].path, hang_holding_the_lock)
    views = TestViews(
        manifest, CLIP, one_view, num_clips=1, quarantine=QuarantinePolicy(deadline_seconds=0.5)
    )
    items = list(test_loader(views, workers=2, rows=range(8), context="fork"))
    assert [item.row for item in items] == list(range(8))
    assert [item.row for item in items if isinstance(item, UnreadableVideo)] == [2]
    assert isinstance(items[2], UnreadableVideo) and items[2].reason == "hung"
    assert (
        "kept a decoder busy beyond data.deadline_seconds; make it again, and remove its line"
        in items[2].message
    )


def test_a_decoder_that_crashes_twice_is_quarantined(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    misbehave_at(monkeypatch, manifest.records[1].path, crash)
    views = TestViews(manifest, CLIP, one_view, num_clips=1)
    items = list(test_loader(views, workers=2, rows=range(8), context="fork"))
    assert [(item.row, item.reason) for item in items if isinstance(item, UnreadableVideo)] == [
        (1, "crashed")
    ]


# -- workers that somebody kills ---------------------------------------------------------------------------------------


def losses(manifest: Manifest, workers: int, kills: Iterator[float] | None = None) -> list[str]:
    """A linear model's losses over 12 steps; `kills`: shares of the time so far after which a worker is killed."""
    clips = TrainClips(manifest, CLIP, small, seed=0)
    plan = BatchPlan(num_records=8, batch_size=4, seed=0)
    before = set(children())
    weights = torch.zeros(3 * 4 * 6 * 8, 4)
    found = []
    batches = train_loader(clips, plan, first_step=0, last_step=12, workers=workers, context="fork")
    chance = random.Random(len(before))
    for step, (batch,) in enumerate(batches):
        pixels, hot = batch.clips.flatten(1), torch.nn.functional.one_hot(batch.labels, 4)
        logs = (pixels @ weights).log_softmax(dim=1)
        weights -= (
            0.01 * pixels.T @ (logs.exp() - hot)
        )  # the gradient by hand: autograd's first step takes seconds
        found.append(float(-(logs * hot).sum()).hex())
        if kills is not None and step % 3 == 1:
            time.sleep(next(kills))
            os.kill(chance.choice(sorted(set(children()) - before)), signal.SIGKILL)
    assert set(children()) <= before
    return found


@pytest.mark.parametrize("attempt", range(10 if FULL else 1))
def test_killed_workers_change_no_loss(manifest: Manifest, attempt: int) -> None:
    moments = random.Random(attempt)
    kills = iter([moments.uniform(0, 0.02) for _ in range(4)])
    assert losses(manifest, workers=2, kills=kills) == losses(manifest, workers=0)
    assert next(kills, None) is None


def die(item: int, opening: OnOpen) -> int:
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_one_item_cannot_kill_workers_for_ever() -> None:
    pool: WorkerPool[int, int] = WorkerPool(
        die, workers=1, quarantine=QuarantinePolicy(), context="fork"
    )
    results = pool.results([0, 1])
    assert next(results) == 0
    words = rf"{DEATHS} loader workers have died over one batch, the last with SIGKILL at its start; if memory is short"
    with pytest.raises(WorkerError, match=words):
        next(results)
    pool.close()


def square(item: int, opening: OnOpen) -> torch.Tensor:
    if item == 7:
        raise KeyError("seven")
    time.sleep(0.01 * (item % 3))
    return torch.full((1000, item), item**2)


def test_results_come_in_order_and_bugs_with_their_place() -> None:
    pool: WorkerPool[int, torch.Tensor] = WorkerPool(
        square, workers=3, quarantine=QuarantinePolicy(), context="fork"
    )
    results = pool.results(range(9))
    for item in range(7):
        assert torch.equal(next(results), torch.full((1000, item), item**2))
    with pytest.raises(
        RuntimeError,
        match=r"in a loader worker:\nTraceback [\s\S]*in square\n[\s\S]*KeyError: 'seven'",
    ):
        next(results)
    pool.close()


def test_idle_workers_of_a_fork_server_stay(caplog: pytest.LogCaptureFixture) -> None:
    pool: WorkerPool[int, torch.Tensor] = WorkerPool(
        square, workers=1, quarantine=QuarantinePolicy(), context="forkserver"
    )
    results = pool.results(range(6))
    assert len(next(results)) == 1000
    time.sleep(6)  # longer than a worker waits before it looks for its parent
    assert [len(rest) for rest in results] == [1000] * 5
    assert not caplog.messages
    pool.close()


LEFT_BEHIND = """
import os, signal, sys
from hiera_video.data.loading.pool import WorkerPool
from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy

def pid(item, opening):
    return os.getpid()

if __name__ == "__main__":
    pool = WorkerPool(pid, workers=2, quarantine=QuarantinePolicy(), context=sys.argv[1])
    results = pool.results(range(9))
    print(next(results), next(results), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_workers_end_when_their_parent_is_killed(context: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(LEFT_BEHIND)
    with subprocess.Popen(
        [sys.executable, script, context], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert parent.returncode == -signal.SIGKILL and len(set(workers)) == 2
    until = time.monotonic() + 20
    while time.monotonic() < until and any(map(is_running, workers)):
        time.sleep(0.1)
    assert not any(map(is_running, workers))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


# -- messages ----------------------------------------------------------------------------------------------------------


def test_tensors_travel_as_they_are() -> None:
    from multiprocessing import Pipe

    ours, theirs = Pipe()
    message = {
        "views": VideoViews(
            row=3,
            crops=Crops(clips=torch.randn(1, 3, 2, 4, 5), boxes=((0, 1, 4, 4),)),
            clip_seconds=((0.0, 1.0),),
            seconds=0.5,
        ),
        "odd": (
            torch.arange(7, dtype=torch.int16),
            torch.tensor(True),
            torch.zeros(0, 4),
            torch.randn(4, 6).t(),
        ),
        "half": torch.randn(3).to(torch.bfloat16),
        "words": ["a", None],
    }
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    send(theirs, message)
    found = receive(ours)
    assert found["words"] == message["words"] and found["views"].row == 3
    assert torch.equal(found["views"].views, message["views"].views)  # type: ignore[attr-defined]
    for one, other in zip((*found["odd"], found["half"]), (*message["odd"], message["half"])):  # type: ignore[misc]
        assert one.dtype == other.dtype and torch.equal(one, other)
    found["half"].add_(1)  # its own memory, and writable
    del found, one
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    theirs.close()
    with pytest.raises(EOFError):
        receive(ours)


def test_quarantine_survives_a_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "quarantine.jsonl"
    Quarantine(str(file)).add("/a b.mp4", "crashed", "x")
    with file.open("a") as more:
        more.write('{"path": "/c')
    known = Quarantine(str(file))
    assert known.reasons == {"/a b.mp4": "crashed"}
    known.check("/c.mp4")
    with pytest.raises(
        DecodeError, match=r"/a b.mp4: crashed a decoder twice; make it again, and remove its line"
    ):
        known.check("/a b.mp4")


def test_records_of_a_quarantined_video_are_never_opened(
    manifest: Manifest, tmp_path: Path
) -> None:
    gone = Record(path=str(tmp_path / "x.mp4"), label=0, row=0)
    Quarantine(str(tmp_path / "q.jsonl")).add(gone.path, "hung", "x")
    alone = Manifest(records=(gone,), class_names=None, multi_label=False, source="x")
    views = TestViews(
        alone,
        CLIP,
        one_view,
        num_clips=1,
        quarantine=QuarantinePolicy(file=str(tmp_path / "q.jsonl")),
    )
    (item,) = test_loader(views, workers=0, rows=[0])
    assert isinstance(item, UnreadableVideo) and item.reason == "hung"
