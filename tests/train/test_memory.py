"""`train.batch_size=auto`: possible micro-batches, the choice among them, and its record."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.config import AugmentConfig
from hiera_video.data.loading.batch_plan import BatchPlan
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import ConfigError, DeviceMemoryError
from hiera_video.models.factory import create_model
from hiera_video.runtime.distributed import SINGLE_PROCESS, World
from hiera_video.train import memory as module
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.context import StepContext
from hiera_video.train.memory import (
    choose_accumulation,
    micro_batch_sizes,
    read_choice,
    trial_step,
    write_choice,
)
from hiera_video.train.state import make_state
from hiera_video.train.tasks import Classify, TaskOutput
from hiera_video.train.trainer import RunInfo, Trainer
from hiera_video.workflows.train import resolve_accumulation

GPU = World(0, 1, torch.device("cuda", 0))


class FakeGpu:
    """Memory counters of a GPU on which a video of a step takes 100 MB."""

    per_video, allocated = 100_000_000, 50_000_000

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, free: int, capacity: int) -> None:
        self.free, self.capacity = free, capacity
        self.peak, self.steps, self.fractions, self.resets = 0, list[int](), list[float](), 0
        for name in (
            "set_per_process_memory_fraction",
            "empty_cache",
            "reset_peak_memory_stats",
            "memory_allocated",
            "memory_reserved",
            "max_memory_allocated",
            "mem_get_info",
        ):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def step(self, videos: int) -> None:
        """Run a step."""
        self.steps.append(videos)
        if videos > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.peak = self.allocated + videos * self.per_video

    def set_per_process_memory_fraction(self, fraction: float, device: torch.device) -> None:
        self.fractions.append(fraction)

    def empty_cache(self) -> None:
        pass

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.resets += 1

    def memory_allocated(self, device: torch.device) -> int:
        return self.allocated

    def memory_reserved(self, device: torch.device) -> int:
        return self.allocated

    def max_memory_allocated(self, device: torch.device) -> int:
        return self.peak

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return self.free, 1 << 40


@pytest.mark.parametrize(("batch_size", "processes"), [(16, 1), (16, 2), (24, 2), (256, 8), (6, 1)])
def test_every_micro_batch_size_makes_a_plan(batch_size: int, processes: int) -> None:
    sizes = micro_batch_sizes(batch_size, processes)
    assert list(sizes) == sorted(sizes) and max(sizes) == batch_size // processes
    for videos, accumulate in sizes.items():
        plan = BatchPlan(
            num_records=batch_size,
            batch_size=batch_size,
            seed=0,
            world=processes,
            accumulate=accumulate,
        )
        assert plan.chunk_size == videos and len(plan.micro_batches(0)) == accumulate


def test_batches_that_cannot_be_divided() -> None:
    assert micro_batch_sizes(16, 2) == {1: 8, 2: 4, 4: 2, 8: 1}
    assert micro_batch_sizes(12, 1) == {1: 12, 2: 6, 4: 3, 6: 2, 12: 1}  # not 3: loads clips twice
    assert micro_batch_sizes(12, 1, pairs=False) == {1: 12, 2: 6, 3: 4, 4: 3, 6: 2, 12: 1}
    assert micro_batch_sizes(5, 1) == {1: 5, 5: 1} and micro_batch_sizes(5, 2) == {}


def test_a_gpu_is_tried_with_more_videos_until_it_is_full(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = FakeGpu(monkeypatch, free=0, capacity=8)
    with caplog.at_level(logging.INFO):
        assert choose_accumulation(gpu.step, 64, GPU, sharded=False) == 8
    assert gpu.steps == [1, 2, 4, 8, 16] and gpu.fractions == [0.9, 1.0] and gpu.resets == 1
    assert "train.accumulate=8, micro-batches of 8 videos, 1 process" in caplog.text


def test_a_cuda_graph_leaves_memory_for_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, free=0, capacity=8)
    assert choose_accumulation(gpu.step, 64, GPU, sharded=False, graph=True) == 8
    assert gpu.fractions == [0.75, 1.0]


@pytest.mark.parametrize(("free", "accumulate"), [(1_000_000_000, 8), (3_000_000_000, 4)])
def test_the_micro_batch_of_a_sharded_model_is_extrapolated(
    free: int, accumulate: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = FakeGpu(monkeypatch, free=free, capacity=64)
    with caplog.at_level(logging.INFO):  # at most 0.8 × free, 100 MB for each of 8 or 16 videos
        assert choose_accumulation(gpu.step, 64, GPU, sharded=True) == accumulate
    assert gpu.steps == [1, 1]
    assert "a video takes 100.0 MB in a step, measured with 1" in caplog.text


@pytest.mark.parametrize("sharded", [False, True])
def test_a_gpu_that_is_too_small_for_any_micro_batch(
    sharded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu(monkeypatch, free=1 << 40, capacity=0)
    words = r"auto: the free memory is too small for 1 video at once; set model.checkpointing=true"
    with pytest.raises(DeviceMemoryError, match=words):
        choose_accumulation(gpu.step, 64, GPU, sharded=sharded)


def test_a_trial_is_a_training_step_on_noise() -> None:
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train = TrainConfig(ema=0.9)
    trainer = Trainer(
        make_state(model, OptimConfig(), train, SINGLE_PROCESS),
        Classify(num_classes=3, multi_label=False, augment=AugmentConfig(mixup=0.8)),
        optim=OptimConfig(clip_grad=1.0),
        train=train,
        run=RunInfo(world=SINGLE_PROCESS, steps_per_epoch=1, num_videos=1, seed=0),
    )
    trial_step(trainer, clip=(3, 16, 32, 32), repeats=2, num_labels=None)(2)
    assert trainer.progress.step == 1 and trainer.state.optimizer.state
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_trainer_that_runs_out_of_memory_is_tried_with_fewer_videos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeGpu(monkeypatch, free=0, capacity=0)
    tried: list[int] = []

    def full_beyond_two(model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        tried.append(len(batch.clips))
        if len(batch.clips) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return TaskOutput(model(batch.clips).square().mean())

    train = TrainConfig()
    trainer = Trainer(
        make_state(create_model("hiera_micro_16x32"), OptimConfig(), train, SINGLE_PROCESS),
        full_beyond_two,
        optim=OptimConfig(),
        train=train,
        run=RunInfo(world=SINGLE_PROCESS, steps_per_epoch=1, num_videos=1, seed=0),
    )
    step = trial_step(trainer, clip=(3, 16, 32, 32), repeats=1, num_labels=None)
    assert choose_accumulation(step, 8, GPU, sharded=False) == 4
    assert tried == [1, 2, 4]


def test_a_choice_is_reused_on_the_same_kind_of_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_choice(tmp_path, 32, SINGLE_PROCESS) is None
    write_choice(tmp_path, 32, SINGLE_PROCESS, 4)
    assert read_choice(tmp_path, 32, SINGLE_PROCESS) == 4
    assert read_choice(tmp_path, 64, SINGLE_PROCESS) is None
    assert read_choice(tmp_path, 32, World(0, 2, torch.device("cpu"))) is None
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: 1 / 0)  # killed before the rename
    with pytest.raises(ZeroDivisionError):
        write_choice(tmp_path, 32, SINGLE_PROCESS, 8)
    assert read_choice(tmp_path, 32, SINGLE_PROCESS) == 4


def test_auto_keeps_the_batch_of_the_recipe() -> None:
    def train(*overrides: str) -> TrainConfig:
        return load_config("configs/motion_hiera_micro.yaml", overrides).train

    batch = train().batch_size
    for text in ("train.batch_size=auto", "train.accumulate=auto"):
        assert (train(text).batch_size, train(text).fit_memory) == (batch, True)
    assert train("train.batch_size=64", "train.batch_size=auto").batch_size == 64
    assert not train().fit_memory
    assert not train("train.batch_size=auto", "train.accumulate=2").fit_memory


def auto_run(folder: Path) -> tuple[Config, Manifest]:
    config = load_config(
        "configs/motion_hiera_micro.yaml",
        ["train.batch_size=16", "train.batch_size=auto", f"out_dir={folder}"],
    )
    records = tuple(Record(path=f"{row}.mp4", label=row % 2, row=row) for row in range(16))
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="list")
    return config, manifest


def test_auto_on_a_cpu_is_an_error(tmp_path: Path) -> None:
    words = r"train.batch_size=auto: measures GPU memory, .* on a CPU; set train.accumulate instead"
    with pytest.raises(ConfigError, match=words):
        resolve_accumulation(*auto_run(tmp_path), 2, SINGLE_PROCESS, None)


def test_a_run_records_its_choice_and_reuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(step: object, batch_size: int, world: World, **_: bool) -> int:
        return 4

    monkeypatch.setattr("hiera_video.workflows.train.choose_accumulation", choose)
    monkeypatch.setattr("hiera_video.workflows.train.require_gpu", lambda device: None)
    config, manifest = auto_run(tmp_path)
    first = resolve_accumulation(config, manifest, 2, SINGLE_PROCESS, None).train
    assert (first.batch_size, first.accumulate) == (16, 4)
    assert (tmp_path / module.RECORD).is_file()
    monkeypatch.undo()
    resumed = resolve_accumulation(config, manifest, 2, SINGLE_PROCESS, None).train
    assert resumed.accumulate == 4
