"""The commands on a GPU: training, test, prediction, features, export, in this process."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_helpers import redrawn, train_arguments, without_gpu

from hiera_video.cli import export, extract, predict, test, train
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.runtime.log import read_metrics

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
CONFIG = "configs/motion_hiera_micro.yaml"


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def weights(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two classes whose outputs depend on the video."""
    folder = tmp_path_factory.mktemp("weights") / "model"
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=2)
    redrawn(model, std=0.1)
    save_pretrained(model, folder)
    return folder


def losses(run: Path) -> list[float]:
    rows = read_metrics(run / "metrics.jsonl")
    return [row["loss"] for row in rows if row["split"] == "train"]


def test_training_equals_that_of_the_cpu(
    trained: Path, movies: Path, tmp_path: Path, device: torch.device
) -> None:
    with without_gpu():
        assert train.main(train_arguments(movies, tmp_path / "run")) == 0
    assert len(losses(trained)) == 2
    np.testing.assert_allclose(losses(trained), losses(tmp_path / "run"), rtol=1e-4)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("place", ["worker", "model"])
def test_augmentation_on_either_device(
    place: str, workers: int, movies: Path, tmp_path: Path, device: torch.device
) -> None:
    """The device's resampling differs by rounding only."""
    everything = ("augment.rand_augment=7", "augment.erase=0.5", "augment.mixup=0.8", "seed=3")
    found = {}
    for name, changes in {
        "actual": (f"augment.device={place}", f"data.workers={workers}"),
        "expected": ("augment.device=worker", "data.workers=0"),
    }.items():
        run = tmp_path / name
        assert train.main(train_arguments(movies, run, *everything, *changes)) == 0
        found[name] = losses(run)
    np.testing.assert_allclose(found["actual"], found["expected"], rtol=1e-3)


def test_pre_training(movies: Path, tmp_path: Path, device: torch.device) -> None:
    arguments = train_arguments(movies, tmp_path / "run", "train.precision=auto")
    arguments[1] = "configs/motion_hiera_micro_mae.yaml"
    assert train.main(arguments) == 0
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    last = [row for row in rows if row["split"] == "train"][-1]
    assert 0.1 < last["loss"] < 3 and last["effective_rank"] >= 1
    assert (tmp_path / "run" / "reconstructions" / "latest.png").exists()


def test_a_deterministic_run_resumes_with_the_same_bits(
    movies: Path, tmp_path: Path, device: torch.device
) -> None:
    common = ("train.deterministic=true", "train.precision=auto", "train.epochs=2")
    found = {}
    for name in ("whole", "resumed"):
        run = tmp_path / name
        if name == "resumed":
            half = train_arguments(movies, run, *common, "train.epochs=1")
            # the cosine's length is that of the whole run
            assert train.main([*half, "optim.lr=1e-3", "optim.min_lr=1e-3"]) == 0
        arguments = train_arguments(movies, run, *common)
        assert train.main([*arguments, "optim.lr=1e-3", "optim.min_lr=1e-3"]) == 0
        rows = read_metrics(run / "metrics.jsonl")
        found[name] = [row["loss_hex"] for row in rows if row["split"] == "train"]
    assert len(found["whole"]) == 4 and found["resumed"] == found["whole"]


def arrays(folder: Path) -> dict[str, Any]:
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return dict(file)


def test_the_test_gives_the_cpus_result(
    weights: Path, movies: Path, tmp_path: Path, device: torch.device
) -> None:
    found = {}
    for place in ("gpu", "cpu"):
        arguments = [
            *("--cfg", CONFIG, f"out_dir={tmp_path / place}", f"model.pretrained={weights}"),
            *(f"test.checkpoint={weights}", f"data.test={movies / 'train.csv'}"),
            *("data.workers=0", "test.precision=fp32", f"data.train={movies / 'train.csv'}"),
            f"data.val={movies / 'val.csv'}",
        ]
        if place == "cpu":
            with without_gpu():
                assert test.main(arguments) == 0
        else:
            assert test.main(arguments) == 0
        found[place] = arrays(tmp_path / place)
    assert found["gpu"].keys() == found["cpu"].keys()
    for name, expected in found["cpu"].items():
        if np.issubdtype(expected.dtype, np.floating):
            np.testing.assert_allclose(found["gpu"][name], expected, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(found["gpu"][name], expected)


def test_prediction(weights: Path, movies: Path, tmp_path: Path, device: torch.device) -> None:
    found = {}
    for place in ("gpu", "cpu"):
        output = tmp_path / f"{place}.csv"
        arguments = [
            *(str(movies / "0.mp4"), "--model", "hiera_micro_16x32", "--checkpoint", str(weights)),
            *("--window", "0.5", "--csv", str(output)),
        ]
        if place == "cpu":
            with without_gpu():
                assert predict.main(arguments) == 0
        else:
            assert predict.main(arguments) == 0
        with output.open() as file:
            found[place] = list(csv.DictReader(file))
    assert len(found["gpu"]) == len(found["cpu"]) > 2
    for one, other in zip(found["gpu"], found["cpu"]):
        assert one["label"] == other["label"]
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-4)


def extract_to(output: Path, weights: Path, movies: Path, *more: str) -> dict[str, bytes]:
    arguments = [
        *("--cfg", CONFIG, f"model.pretrained={weights}", f"input={movies / 'train.csv'}"),
        *("features.shard_videos=4", "features.batch_size=4", "data.workers=0"),
        *(f"output={output}", *more),
    ]
    assert extract.main(arguments) == 0
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in (output / "shards").rglob("*.*")
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_extraction_gives_the_same_bytes_again(
    precision: str, weights: Path, movies: Path, tmp_path: Path, device: torch.device
) -> None:
    options = (f"features.precision={precision}", f"features.dtype={precision}")
    first = extract_to(tmp_path / "first", weights, movies, *options)
    assert len(first) >= 2
    assert extract_to(tmp_path / "again", weights, movies, *options) == first
    assert extract_to(tmp_path / "workers", weights, movies, *options, "data.workers=2") == first


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_export(suffix: str, weights: Path, tmp_path: Path, device: torch.device) -> None:
    missing = [
        name for name in ("onnx", "onnxruntime", "onnxscript") if not importlib.util.find_spec(name)
    ]
    if suffix == "onnx" and missing:
        pytest.skip(f"needs {', '.join(missing)}")
    output = tmp_path / f"model.{suffix}"
    arguments = ["--model", "hiera_micro_16x32", "--pretrained", str(weights)]
    assert export.main([*arguments, "--output", str(output)]) == 0
    assert output.stat().st_size > 1e5
    assert json.loads(output.with_name(output.name + ".json").read_text())


@pytest.mark.slow
def test_two_ranks_by_nccl(trained: Path, movies: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    for parallel in ("ddp", "fsdp"):
        run = tmp_path / parallel
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        arguments = train_arguments(movies, run, f"train.parallel={parallel}")
        done = subprocess.run(
            [*command, "--nproc-per-node=2", "tools/train_net.py", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        np.testing.assert_allclose(losses(run), losses(trained), rtol=1e-4)
