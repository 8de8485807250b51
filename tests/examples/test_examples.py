"""Run every program in examples/ on small videos and a small model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import hiera_video as hv
from hiera_video.cli.main import run_command

FOLDER = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture
def example(
    trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], ModuleType]:
    """Return a function that imports an example by name, in a copy of `trained_folder`."""
    shutil.copytree(trained_folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.syspath_prepend(str(FOLDER))
    return import_module


def test_examples_are_short_and_documented() -> None:
    files = sorted(FOLDER.glob("*.py"))
    assert len(files) == 7
    page = (FOLDER.parent / "docs" / "examples.md").read_text()
    for file in files:
        lines = file.read_text().splitlines()
        assert len(lines) <= 60, file.name
        assert f"examples/{file.name}" in page
        assert any(f"python examples/{file.name} " in line for line in lines), file.name


def test_classify_file(example: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    example("classify_file").main("clip.mp4", "runs/x")
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[-1] for line in lines[:2]} == {"left", "right"}
    assert sum(float(line.split("%")[0]) for line in lines[:2]) == pytest.approx(100, abs=0.2)
    assert lines[2] == "averaged over 2 clips; the first is 0.0–1.3 s"


def test_fine_tune_on_folder(example: Callable) -> None:
    short = ("train.epochs=1", "train.batch_size=4", "data.workers=0", "out_dir=runs/tuned")
    code = example("fine_tune_on_folder").main(
        "motion_hiera_micro", "videos", "model.pretrained=runs/x", *short
    )
    assert code == 0
    assert Path("runs/tuned/report.html").is_file()
    assert hv.load("runs/tuned").class_names == ("left", "right")


def test_nearest_neighbours(example: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    example("nearest_neighbours").main("runs/x", "videos/train", "found")
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    similarities = [float(similarity) for similarity, _, _ in lines]
    assert len(lines) == 10
    assert similarities == sorted(similarities, reverse=True)
    assert all(first != second for _, first, second in lines)


def test_reconstruct(example: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("data.train=videos/train", "data.val=null", "out_dir=runs/x_mae", "data.workers=0")
    short = ("train.epochs=1", "train.batch_size=4", "optim.warmup_epochs=0")
    assert run_command(["train", "--cfg", "motion_hiera_micro_mae", *keys, *short]) == 0
    example("reconstruct").main("clip.mp4", "runs/x_mae", "out.png")
    assert "8 of 32 units visible, loss " in capsys.readouterr().out
    with Image.open("out.png") as sheet:
        assert sheet.height > 3 * 90  # three rows: original, visible, predicted


def test_own_loop_learns(example: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    example("own_loop").main("videos/train", "hiera_micro_16x32", "none", "2")
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 2 and all(0 < loss < 5 for loss in losses)


def test_lightning_module(example: Callable) -> None:
    pytest.importorskip("lightning")
    module = example("lightning_module").main("videos/train", "hiera_micro_16x32")
    (optimizer,) = [module.configure_optimizers()]
    counts = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    assert sum(counts) == sum(p.numel() for p in module.parameters())
    assert 0 < module.trainer.callback_metrics["loss"] < 5


def test_onnx_runtime_agrees_with_the_run(
    example: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["export", "--run", "runs/x", "output=x.onnx"]) == 0
    program = example("onnx_runtime")
    capsys.readouterr()
    program.main("clip.mp4", "x.onnx")
    shown = {line.split()[-1]: line for line in capsys.readouterr().out.splitlines()}
    run = hv.load("runs/x")
    test = replace(run.config.test, clips=1, crops=1)
    one_view = replace(run, config=replace(run.config, test=test), transform=None)
    for prediction in hv.predict(one_view, "clip.mp4"):
        found = float(shown[prediction.label].split("%")[0]) / 100
        assert found == pytest.approx(prediction.probability, abs=0.01)


def test_onnx_runtime_imports_neither_torch_nor_this_package() -> None:
    text = (FOLDER / "onnx_runtime.py").read_text()
    assert "torch\n" not in text.split('"""')[2] and "hiera_video" not in text.split('"""')[2]
