"""`--dry-run`: the training itself for two steps at the smallest batch, without files."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from graph_emulator import EmulatedGraph
from PIL import Image

from hiera_video.cli import train as train_command
from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError, HieraVideoError
from hiera_video.runtime.log import read_metrics
from hiera_video.video.encode import write_video
from hiera_video.workflows.build import read_split
from hiera_video.workflows.dry_run import dry_run, shrink
from hiera_video.workflows.train import train_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three videos and `list.csv` with their labels."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 255, (18, 40, 48, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=12)
    (folder / "list.csv").write_text("".join(f"{number}.mp4 {number % 2}\n" for number in range(3)))
    return folder


def setup(source: Path, out_dir: Path, *overrides: str) -> tuple[Config, Manifest]:
    common = [f"data.train={source}", "data.val=null", f"out_dir={out_dir}", "data.workers=0"]
    random_parts = ["augment.mixup=0.8", "model.drop_path_rate=0.2", "model.head_dropout=0.3"]
    config = load_config(
        "configs/motion_hiera_micro.yaml", [*common, *random_parts, "train.log_every=1", *overrides]
    )
    return config, read_split(config, "train")


def losses(text: str) -> list[str]:
    return re.findall(r"step \d: clips .*, loss (\S+), \d+\.\d s", text)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_losses_are_those_of_a_real_run_at_this_batch(
    precision: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = (f"train.precision={precision}", "optim.clip_grad=0.5", "train.epochs=2")
    small = ("train.batch_size=1", *options)
    assert train_run(*setup(folder / "list.csv", tmp_path / "run", *small), None, 2) == 0
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    with caplog.at_level(logging.INFO):
        assert dry_run(*setup(folder / "list.csv", tmp_path / "dry", *small)) == 0
    assert losses(caplog.text) == [f"{row['loss']:.4f}" for row in rows[:2]]


def test_accumulation_on_too_few_videos_without_labels(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unlabelled = tmp_path / "unlabelled.csv"
    unlabelled.write_text("0.mp4\n")
    overrides = (
        f"data.root={folder}",
        "train.batch_size=64",
        "train.accumulate=8",
        "data.workers=1",
    )
    with caplog.at_level(logging.INFO):
        assert dry_run(*setup(unlabelled, tmp_path / "run", *overrides)) == 0
    assert caplog.text.count("clips [1, 3, 16, 32, 32] × 2 micro-batches, loss ") == 2
    assert "1 video; batch of 64 videos × 1 clip," in caplog.text
    assert re.search(r"full recipe: \d+ × 1 video, \d+:\d\d:\d\d on cpu at this", caplog.text)
    assert not (tmp_path / "run").exists()


def test_validation_lists_are_looked_at(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_text("a.mp4 0\nb.mp4 1\n")
    common = ["--cfg", "motion_hiera_micro", "--dry-run", f"data.train={folder / 'list.csv'}"]
    common += [f"out_dir={tmp_path / 'run'}", "data.workers=0", "train.batch_size=2"]
    words = r"elsewhere.csv: 2 of 2 videos that were looked at do not exist, such as .*/a.mp4; set"
    with pytest.raises(ConfigError, match=words):
        train_command.main([*common, f"data.val={elsewhere}"])
    assert train_command.main([*common, "data.val=gone.csv"]) == 0
    assert "data.val=gone.csv: no such file or folder; a run needs it" in caplog.text


def test_pre_training_through_a_cuda_graph(
    folder: Path,
    tmp_path: Path,
    emulated_graphs: list[EmulatedGraph],
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = load_config(
        "configs/motion_hiera_micro_mae.yaml",
        [
            *(f"data.train={folder / 'list.csv'}", "data.val=null", f"out_dir={tmp_path / 'run'}"),
            *("data.workers=0", "train.batch_size=2", "train.accumulate=2"),
            *("train.cuda_graph=true", "model.drop_path_rate=0.2"),
        ],
    )
    with caplog.at_level(logging.INFO):
        assert dry_run(config, read_split(config, "train")) == 0
    assert caplog.text.count("clips [2, 3, 16, 32, 32] × 2 micro-batches, loss ") == 2
    assert [graph.replays for graph in emulated_graphs] == [4]


def test_a_folder_of_extracted_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        folder = tmp_path / "frames" / "ab"[number % 2] / f"{number}"
        folder.mkdir(parents=True)
        for frame in range(18):
            picture = np.full((40, 48, 3), 20 * number + frame, np.uint8)
            Image.fromarray(picture).save(folder / f"{frame:05}.jpg")
    run = tmp_path / "run"
    options = ("train.batch_size=2", "augment.mixup=0")
    with caplog.at_level(logging.INFO):
        assert dry_run(*setup(tmp_path / "frames", run, *options, "data.decoder=frames")) == 0
    assert caplog.text.count("clips [1, 3, 16, 32, 32], loss ") == 2
    assert "2 classes" in caplog.text
    words = "contains no videos, but folders of pictures .*; data.decoder=frames reads those"
    with pytest.raises(HieraVideoError, match=words):
        dry_run(*setup(tmp_path / "frames", run, *options))


def test_a_non_finite_loss_is_reported_without_files(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ("train.max_loss=1e-9", "train.batch_size=2")
    config, manifest = setup(folder / "list.csv", tmp_path / "run", *options)
    assert dry_run(config, manifest) == 4
    assert re.search(r"the manifest rows of the step are \[\[\[\d\]\]\]; lower optim", caplog.text)
    assert "full recipe" not in caplog.text and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("accumulate", "processes", "expected"),
    [(1, 1, (1, 1)), (8, 1, (2, 2)), (1, 2, (2, 1)), (4, 2, (4, 2))],
)
def test_the_smallest_batch(
    accumulate: int, processes: int, expected: tuple[int, int], folder: Path, tmp_path: Path
) -> None:
    overrides = (f"train.accumulate={accumulate}", "train.batch_size=64", "optim.lr_for_batch=128")
    config, manifest = setup(folder / "list.csv", tmp_path / "run", *overrides)
    small, videos = shrink(config, manifest, processes)
    assert (small.train.batch_size, small.train.accumulate) == expected
    assert len(videos.records) >= 2 * small.train.batch_size
    assert small.optim.lr == config.optim.lr / 2 and small.optim.lr_for_batch is None
