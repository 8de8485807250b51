"""`train.batch_size=auto`: which parts there are, what is free, and real steps of a real model within a small limit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hiera_video.config.load import load_config
from hiera_video.data.config import AugmentConfig
from hiera_video.data.loading.loader import BatchPlan
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import ConfigError, DeviceMemoryError
from hiera_video.models.factory import create_model
from hiera_video.runtime.distributed import SINGLE_PROCESS, World
from hiera_video.train import memory as module
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.memory import (
    choose_parts,
    free_host_memory,
    growth_of,
    part_sizes,
    remember,
    remembered,
    trial_step,
)
from hiera_video.train.state import make_state
from hiera_video.train.tasks import Classify
from hiera_video.workflows.train import fitted


def micro_step() -> Callable[[int], None]:
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3).train()
    task = Classify(
        num_classes=3, multi_label=False, augment=AugmentConfig(mixup=0.8), depth=4, seed=0
    )
    state = make_state(model, OptimConfig(), TrainConfig(ema=0.9), SINGLE_PROCESS)
    return trial_step(
        state, task, SINGLE_PROCESS, precision="fp32", clip=(3, 16, 32, 32), repeats=2, num_labels=None
    )


@pytest.mark.parametrize(("batch_size", "processes"), [(16, 1), (16, 2), (24, 2), (256, 8), (6, 1)])
def test_every_size_of_a_part_makes_a_plan(batch_size: int, processes: int) -> None:
    sizes = part_sizes(batch_size, processes)
    assert list(sizes) == sorted(sizes) and max(sizes) == batch_size // processes
    for videos, parts in sizes.items():
        plan = BatchPlan(
            num_records=batch_size, batch_size=batch_size, seed=0, world=processes, accumulate=parts
        )
        assert [len(slots) for slots in plan.micro_batches(0)] == [videos] * parts


def test_a_batch_that_no_plan_takes_is_left_to_the_plan() -> None:
    assert (
        part_sizes(16, 2) == {2: 4, 4: 2, 8: 1}
        and part_sizes(5, 1) == {5: 1}
        and part_sizes(5, 2) == {}
    )


def test_less_memory_makes_more_parts_and_the_parts_fit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step, chosen = micro_step(), {}
    with caplog.at_level(logging.INFO):
        for free in (60_000_000, 200_000_000, 4_000_000_000):
            monkeypatch.setattr(module, "free_host_memory", lambda free=free: free)
            chosen[free] = choose_parts(step, 32, SINGLE_PROCESS, sharded=False)
    assert chosen[60_000_000] > chosen[200_000_000] > chosen[4_000_000_000] == 1
    for free, parts in chosen.items():
        assert growth_of(lambda parts=parts: step(32 // parts), SINGLE_PROCESS) < free  # type: ignore[misc]
    assert (
        f"the 32 videos of a step as {chosen[60_000_000]} parts of {32 // chosen[60_000_000]} on each of 1"
        in caplog.text
    )
    assert "MB in a step, measured with" in caplog.text and "0.06 GB are free" in caplog.text
    monkeypatch.setattr(module, "free_host_memory", lambda: 1_000_000)
    with pytest.raises(
        DeviceMemoryError,
        match=r"auto: not even 2 videos at once fit .* set model.checkpointing=true",
    ):
        choose_parts(step, 32, SINGLE_PROCESS, sharded=False)


def test_a_gpu_is_filled_until_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic alone: no GPU is here."""
    tried: list[int] = []

    def step(videos: int) -> None:
        tried.append(videos)
        if videos > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")

    shares: list[float] = []
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.append(share)
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    forgotten: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    world = World(0, 1, torch.device("cuda", 0))
    assert choose_parts(step, 64, world, sharded=False) == 8
    assert tried == [2, 4, 8, 16] and shares == [0.9, 1.0] and forgotten == [world.device]
    monkeypatch.setattr(module, "free_memory", lambda _: 1 << 40)
    with pytest.raises(
        DeviceMemoryError, match="not even 2 videos at once fit"
    ):  # a sharded model's first step
        choose_parts(lambda videos: step(videos + 8), 64, world, sharded=True)


def test_what_was_chosen_is_taken_again_on_the_same_machines_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remembered(tmp_path, 32, SINGLE_PROCESS) is None
    remember(tmp_path, 32, SINGLE_PROCESS, 4)
    assert remembered(tmp_path, 32, SINGLE_PROCESS) == 4
    assert remembered(tmp_path, 64, SINGLE_PROCESS) is None
    assert remembered(tmp_path, 32, World(0, 2, torch.device("cpu"))) is None
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: 1 / 0
    )  # a kill in the middle leaves what was there
    with pytest.raises(ZeroDivisionError):
        remember(tmp_path, 32, SINGLE_PROCESS, 8)
    assert remembered(tmp_path, 32, SINGLE_PROCESS) == 4


def system(root: Path, group: str, files: dict[str, str]) -> Path:
    """A file system that says 8 GB are free, with a control group."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    (root / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        (root / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "free"),
    [
        ("0::/\n", {}, 8_192_000_000),
        (
            "0::/\n",
            {"memory.max": "max\n", "memory.current": "5\n", "memory.stat": ""},
            8_192_000_000,
        ),
        (
            "0::/job/step\n",  # the limit stands above the process's own group
            {
                "job/memory.max": "3000\n",
                "job/memory.current": "2500\n",
                "job/memory.stat": "anon 1\ninactive_file 200\n",
            },
            700,
        ),
        (
            "4:memory:/box\n0::/\n",
            {
                "memory/box/memory.limit_in_bytes": "9000\n",
                "memory/box/memory.usage_in_bytes": "9500\n",
                "memory/box/memory.stat": "total_inactive_file 0\n",
            },
            0,
        ),
    ],
)
def test_what_is_free_is_the_least_that_machine_and_groups_leave(
    tmp_path: Path, group: str, files: dict[str, str], free: int
) -> None:
    assert free_host_memory(system(tmp_path, group, files)) == free


def test_this_machine_says_what_is_free_and_others_are_told(tmp_path: Path) -> None:
    assert free_host_memory() > 0
    with pytest.raises(
        ConfigError, match=r"does not say how much memory is free; set train.accumulate"
    ):
        free_host_memory(tmp_path)


def test_auto_keeps_the_recipes_batch() -> None:
    def train(*overrides: str) -> TrainConfig:
        return load_config("configs/motion_hiera_micro.yaml", overrides).train

    batch = train().batch_size
    for text in ("train.batch_size=auto", "train.accumulate=auto"):
        assert (train(text).batch_size, train(text).fit_memory) == (batch, True)
    assert train("train.batch_size=64", "train.batch_size=auto").batch_size == 64
    assert (
        not train().fit_memory
        and not train("train.batch_size=auto", "train.accumulate=2").fit_memory
    )


def test_a_run_is_cut_into_parts_and_remembers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_host_memory", lambda: 60_000_000)
    config = load_config(
        "configs/motion_hiera_micro.yaml", ["train.batch_size=16", "train.batch_size=auto"]
    )
    records = tuple(Record(path=f"{row}.mp4", label=row % 2, row=row) for row in range(16))
    train = Manifest(records=records, class_names=None, multi_label=False, source="list")
    first = fitted(config, train, 2, tmp_path, SINGLE_PROCESS, None).train
    assert first.batch_size == 16 and first.accumulate in (2, 4, 8)
    monkeypatch.setattr(module, "free_host_memory", lambda: 0)  # a restart finds what was chosen
    assert fitted(config, train, 2, tmp_path, SINGLE_PROCESS, None).train.accumulate == first.accumulate
