"""Real workers that hang, crash or are killed (RELIABILITY V5, W1, W3): the results stay the same.

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

import pytest
import torch

from hiera_video.data import dataset as dataset_module
from hiera_video.data.config import AugmentConfig
from hiera_video.data.dataset import TestViews, TrainClips, UnreadableVideo
from hiera_video.data.loading.batch_plan import BatchPlan
from hiera_video.data.loading.loader import test_loader, train_loader
from hiera_video.data.loading.pool import PAUSE_SECONDS
from hiera_video.data.loading.quarantine import Quarantine, QuarantinePolicy
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform, TrainTransform

pytestmark = pytest.mark.fault

FULL = os.environ.get("FAULTS") == "full"
CLIP = ClipConfig(num_frames=4, frame_stride=2)
CROP = TrainTransform(AugmentConfig(), 16)
VIEW = EvalTransform(16, 1, (0.45,) * 3, (0.225,) * 3)


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def hang_holding_the_lock() -> None:
    """Hang as badly as a decoder can: no Python runs in this process any more."""
    ctypes.PyDLL(None).sleep(1000)


def crash() -> None:
    faulthandler.disable()  # pytest's, which would print a traceback
    os.kill(os.getpid(), signal.SIGSEGV)


def misbehave_at(monkeypatch: pytest.MonkeyPatch, path: str, how: Any) -> None:
    """Call `how` when `path` is opened; forked workers inherit this."""
    opened = dataset_module.open_video

    def open_video(name: str, backend: Any = "pyav") -> Any:
        if name == path:
            how()
        return opened(name, backend)

    monkeypatch.setattr(dataset_module, "open_video", open_video)


@pytest.mark.parametrize("attempt", range(10 if FULL else 1))
def test_a_hung_decoder_is_killed_and_its_file_quarantined(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    deadline, bad = 1.0 if FULL else 4.0, manifest.records[attempt % 9].path
    file = tmp_path / "run" / "quarantine.jsonl"
    policy = QuarantinePolicy(deadline_seconds=deadline, file=str(file))
    plan = BatchPlan(num_records=9, batch_size=4, seed=attempt)
    killed: list[float] = []
    add = Quarantine.add
    with monkeypatch.context() as patch:
        misbehave_at(patch, bad, hang_holding_the_lock)
        patch.setattr(
            Quarantine, "add", lambda *args: killed.append(time.monotonic()) or add(*args)
        )
        clips = TrainClips(manifest, CLIP, CROP, seed=0, quarantine=policy)
        began = time.monotonic()
        loader = train_loader(clips, plan, first_step=0, last_step=8, workers=2, context="fork")
        steps = [step[0] for step in loader]
    assert len(killed) == 1 and killed[0] - began < deadline + (2 if FULL else 60)
    substituted = [pair for batch in steps for pair in batch.substituted]
    # each of four epochs leaves one of the nine videos out
    assert len(substituted) >= 2 and set(substituted) == {(bad, "hung")}
    (entry,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert (entry["path"], entry["reason"]) == (bad, "hung")
    assert f"data.deadline_seconds={deadline:g}; it was killed" in entry["message"]
    assert entry["time"].startswith("20")
    # a restart, here without workers, skips the file and yields the same batches
    again = TrainClips(manifest, CLIP, CROP, seed=0, quarantine=policy)
    resumed = train_loader(again, plan, first_step=0, last_step=8, workers=0)
    for batch, (other,) in zip(steps, resumed, strict=True):
        assert torch.equal(batch.clips, other.clips) and batch.substituted == other.substituted


@pytest.mark.parametrize(("how", "reason"), [(hang_holding_the_lock, "hung"), (crash, "crashed")])
def test_a_video_that_hangs_or_crashes_its_decoder_is_reported_by_a_test(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, how: Any, reason: str
) -> None:
    misbehave_at(monkeypatch, manifest.records[2].path, how)
    policy = QuarantinePolicy(deadline_seconds=4.0)
    views = TestViews(manifest, CLIP, VIEW, num_clips=1, quarantine=policy)
    items = list(test_loader(views, workers=2, rows=range(8), context="fork"))
    assert [item.row for item in items] == list(range(8))
    unreadable = [item for item in items if isinstance(item, UnreadableVideo)]
    assert [(item.row, item.reason) for item in unreadable] == [(2, reason)]


def test_a_disk_that_blocks_all_workers_beyond_the_deadline_quarantines_nothing(
    manifest: Manifest, tmp_path: Path, block_reads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue I, 4.6, with real reads that the kernel blocks."""
    file = tmp_path / "quarantine.jsonl"
    policy = QuarantinePolicy(deadline_seconds=1.0, file=str(file))
    plan = BatchPlan(num_records=9, batch_size=3, seed=0)
    clips = TrainClips(manifest, CLIP, CROP, seed=0, quarantine=policy)
    steps = {"first_step": 0, "last_step": 6, "context": "fork"}
    expected = [step[0].clips for step in train_loader(clips, plan, workers=0, **steps)]
    release = block_reads([Path(record.path) for record in manifest.records])
    waited: list[str] = []

    def note(message: str, path: str) -> None:
        waited.append(path)
        if len(waited) == 2:
            release()

    monkeypatch.setattr("hiera_video.data.loading.storage.PROBE_SECONDS", 1.0)
    monkeypatch.setattr("hiera_video.data.loading.pool.logger.warning", note)
    found = [step[0].clips for step in train_loader(clips, plan, workers=2, **steps)]
    assert len(waited) >= 2 and not file.exists()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def kill_for_memory() -> None:
    """End as the kernel ends a process at its memory limit."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_file_that_kills_workers_is_quarantined_and_training_goes_on(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue I, 4.8."""
    bad, file = manifest.records[4].path, tmp_path / "quarantine.jsonl"
    misbehave_at(monkeypatch, bad, kill_for_memory)
    policy = QuarantinePolicy(file=str(file))
    plan = BatchPlan(num_records=9, batch_size=3, seed=0)
    substituted: list[Any] = []
    for _ in range(2):  # the second is a restart
        clips = TrainClips(manifest, CLIP, CROP, seed=0, quarantine=policy)
        loader = train_loader(clips, plan, first_step=0, last_step=3, workers=2, context="fork")
        substituted.append([pair for step in loader for pair in step[0].substituted])
    assert substituted[0] == substituted[1] and set(substituted[0]) == {(bad, "crashed")}
    (entry,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert (entry["path"], entry["message"]) == (bad, "ended a worker twice with SIGKILL")


def losses(manifest: Manifest, workers: int, kills: Iterator[float] | None = None) -> list[str]:
    """Train a linear model for 12 steps; kill a worker after each of the times in `kills`."""
    clips = TrainClips(manifest, CLIP, CROP, seed=0)
    plan = BatchPlan(num_records=9, batch_size=4, seed=0)
    before = children()
    weights = torch.zeros(3 * 4 * 16 * 16, 4)
    found = []
    batches = train_loader(clips, plan, first_step=0, last_step=12, workers=workers, context="fork")
    choice = random.Random(0)
    for step, (batch,) in enumerate(batches):
        pixels, hot = batch.clips.flatten(1), torch.nn.functional.one_hot(batch.labels, 4)
        logs = (pixels @ weights).log_softmax(dim=1)
        # the gradient by hand: autograd's first step takes seconds
        weights -= 0.01 * pixels.T @ (logs.exp() - hot)
        found.append(float(-(logs * hot).sum()).hex())
        if kills is not None and step % 3 == 1:
            time.sleep(next(kills))
            os.kill(choice.choice(sorted(children() - before)), signal.SIGKILL)
    assert children() <= before
    return found


@pytest.mark.parametrize("attempt", range(10 if FULL else 1))
def test_killed_workers_change_no_loss(
    manifest: Manifest, attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two of the kills may hit the same file, which is then not to blame
    monkeypatch.setattr("hiera_video.data.loading.faults.DEATHS_AT_FILE", 5)
    moments = random.Random(attempt)
    kills = iter([moments.uniform(0, 0.02) for _ in range(4)])
    assert losses(manifest, workers=2, kills=kills) == losses(manifest, workers=0)
    assert next(kills, None) is None


def test_workers_ignore_signals_and_end_with_the_loader(manifest: Manifest) -> None:
    plan = BatchPlan(num_records=9, batch_size=2, seed=0)
    dataset = TrainClips(manifest, CLIP, CROP, seed=0)
    before = children()
    expected = train_loader(dataset, plan, first_step=0, last_step=20, workers=0)
    batches = train_loader(dataset, plan, first_step=0, last_step=20, workers=2, context="fork")
    found = [next(batches)]
    workers = children() - before
    assert len(workers) == 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for pid in workers:
            os.kill(pid, number)
    found += [next(batches) for _ in range(10)]
    for (batch,), (other,) in zip(found, expected):
        assert torch.equal(batch.clips, other.clips)
    assert workers <= children()  # none was replaced
    batches.close()  # type: ignore[attr-defined]
    assert not workers & children()


POOL_SCRIPT = """
import os, signal, sys
from hiera_video.data.loading.pool import WorkerPool
from hiera_video.data.loading.quarantine import QuarantinePolicy

def pid(item, on_open):
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
    script.write_text(POOL_SCRIPT)
    with subprocess.Popen(
        [sys.executable, script, context], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert parent.returncode == -signal.SIGKILL and len(set(workers)) == 2
    until = time.monotonic() + 60
    while time.monotonic() < until and any(map(is_running, workers)):
        time.sleep(0.1)
    assert not any(map(is_running, workers))


STOPPED_SCRIPT = """
import sys, time
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import QuarantinePolicy

def read(item, on_open):
    on_open(f"{item}.mp4")
    time.sleep(0.5)
    return item

if __name__ == "__main__":
    policy = QuarantinePolicy(deadline_seconds=4.0, file=sys.argv[1])
    for result in map_videos(read, range(12), workers=2, quarantine=policy, context="fork"):
        print(result, flush=True)
"""


def test_a_process_group_that_is_stopped_beyond_the_deadline_quarantines_nothing(
    tmp_path: Path,
) -> None:
    script, file = tmp_path / "parent.py", tmp_path / "quarantine.jsonl"
    script.write_text(STOPPED_SCRIPT)
    with subprocess.Popen(
        [sys.executable, script, file], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        first = parent.stdout.readline()
        os.killpg(parent.pid, signal.SIGSTOP)
        time.sleep(PAUSE_SECONDS + 2)
        os.killpg(parent.pid, signal.SIGCONT)
        rest = parent.stdout.read()
    assert parent.returncode == 0
    assert (first + rest).split() == [str(item) for item in range(12)]
    assert not file.exists()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


ORPHAN = """
import os, sys, time
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import QuarantinePolicy

def hang(item, on_open):
    print(os.getpid(), flush=True)
    while True:
        time.sleep(1)  # as a decoder that never looks at its pipe

list(map_videos(hang, [1], workers=1, quarantine=QuarantinePolicy(), context="fork"))
"""


@pytest.mark.fault
@pytest.mark.skipif(sys.platform != "linux", reason="uses prctl")
def test_a_hung_worker_ends_with_a_killed_parent() -> None:
    """Issue I, 4.11."""
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert parent.stdout.read() == ""  # ends once the worker, which holds the pipe, is gone
    deadline = time.monotonic() + 60
    while is_running(worker):  # the pipe closes a moment before the process has ended
        assert time.monotonic() < deadline
        time.sleep(0.01)
