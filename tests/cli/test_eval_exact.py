"""One process, two processes, killed and resumed: the same bytes. Another batch size: the same answers to 1e-6; half
precision: close, recorded, and never resumed as fp32. Broken videos: counted, named, and the same number again."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hiera_video.config.load import load_config
from hiera_video.eval import forward
from hiera_video.eval.views import Predictions
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.weights.load import from_pretrained
from hiera_video.models.weights.save import save_pretrained
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.video.encode import write_video
from hiera_video.workflows import test as testing
from hiera_video.workflows.build import manifest_of
from hiera_video.workflows.test import PARTIAL, test_run
from hiera_video.workflows.train import make_evaluator

ROOT = Path(__file__).parents[2]
CONFIG = "configs/motion_hiera_micro.yaml"
VIDEOS, BROKEN = 20, (4, 13)


@pytest.fixture(scope="module")
def common(
    tmp_path_factory: pytest.TempPathFactory, answering_model: Callable[[], Hiera]
) -> list[str]:
    """Twenty videos of which two are broken, and a model: the overrides of a 2×3 test of it."""
    folder = tmp_path_factory.mktemp("exact")
    lines = []
    for row in range(VIDEOS):
        pixels = np.random.default_rng(row).integers(0, 255, (20 + row, 40, 48, 3), dtype=np.uint8)
        write_video(folder / f"{row}.mp4", pixels, fps=30)
        lines.append(f"{row}.mp4 {row % 3}\n")
    for row in BROKEN:
        (folder / f"{row}.mp4").write_bytes(b"no video at all")
    (folder / "list.csv").write_text("".join(lines))
    (folder / "labels.txt").write_text("a\nb\nc\n")
    model = answering_model()
    save_pretrained(model, folder / "model", class_names=["a", "b", "c"])
    return [
        *(
            f"data.test={folder / 'list.csv'}",
            f"test.checkpoint={folder / 'model'}",
            "data.workers=0",
        ),
        *("test.clips=2", "test.crops=3"),
    ]


def evaluate(out: Path, common: list[str], *overrides: str) -> int:
    """The test in this process."""
    config = load_config(
        ROOT / CONFIG, [*common, f"out_dir={out}", "test.batch_size=3", *overrides]
    )
    return test_run(config, manifest_of(config, "test"), dry_run=False)


def shares(out: Path) -> np.ndarray:
    arrays = np.load(out / "predictions.npz")
    return Predictions(arrays["rows"], arrays["logits"], ()).probabilities()


@pytest.fixture(scope="module")
def undisturbed(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert evaluate(out, common) == 3  # two of twenty are over the limit of 5 %
    return out


def test_broken_videos_are_counted_and_the_number_is_the_same_again(
    undisturbed: Path, common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert evaluate(tmp_path, common, "test.max_broken=0.1") == 0
    assert "(evaluated 18 of 20)" in caplog.text and "row 4 cannot be read: " in caplog.text
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["evaluated"], found["of"]) == (18, 20)
    assert [(item["row"], item["reason"]) for item in found["broken"]] == [
        (4, "container"),
        (13, "container"),
    ]
    for name in ("results.json", "predictions.csv", "predictions.npz"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_another_batch_size_rounds_alone(
    undisturbed: Path, common: list[str], tmp_path: Path
) -> None:
    evaluate(tmp_path, common, "test.batch_size=8")
    ours, other = shares(tmp_path), shares(undisturbed)
    assert np.abs(ours - other).max() <= 1e-6
    assert (np.argsort(-ours, axis=1) == np.argsort(-other, axis=1)).all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_and_recorded(
    undisturbed: Path, common: list[str], tmp_path: Path, precision: str
) -> None:
    assert evaluate(tmp_path, common, f"test.precision={precision}") == 3
    gap = np.abs(shares(tmp_path) - shares(undisturbed))
    assert 1e-6 < gap.max() <= 2e-2
    logits = np.load(tmp_path / "predictions.npz")["logits"]
    assert logits.dtype == np.float32
    for folder, expected in ((tmp_path, precision), (undisturbed, "fp32")):
        assert json.loads((folder / "results.json").read_text())["precision"] == expected
    assert f"2×3 views a video in {precision} ·" in (tmp_path / "report.html").read_text()
    assert "2×3 views a video ·" in (undisturbed / "report.html").read_text()


def test_validation_while_training_computes_in_the_tests_precision(
    common: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def noted(model: nn.Module, views: torch.Tensor, precision: str) -> torch.Tensor:
        used.append(precision)
        return forward.compute_logits(model, views, precision)

    monkeypatch.setattr("hiera_video.eval.evaluate.compute_logits", noted)
    model = from_pretrained(common[1].removeprefix("test.checkpoint="))
    for precision in ("fp32", "bf16"):
        config = load_config(ROOT / CONFIG, [*common, f"test.precision={precision}"])
        evaluator = make_evaluator(config, manifest_of(config, "test"), SINGLE_PROCESS)
        assert evaluator is not None and evaluator(model)["evaluated"] == VIDEOS - len(BROKEN)
        assert set(used) == {precision}
        used.clear()


def test_shards_of_another_precision_are_not_mixed_in(
    undisturbed: Path,
    common: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    caplog.set_level(logging.INFO)
    with (
        monkeypatch.context() as patched,
        pytest.raises(KeyboardInterrupt),
    ):  # all shards are finished, and kept
        patched.setattr(testing, "write_results", stopped)
        evaluate(tmp_path, common)
    evaluate(tmp_path, common, "test.precision=bf16")
    assert "already finished" not in caplog.text
    assert json.loads((tmp_path / "results.json").read_text())["precision"] == "bf16"
    assert np.abs(shares(tmp_path) - shares(undisturbed)).max() > 1e-6
    evaluate(tmp_path, common)
    # two shards of three have a broken video: they are computed again
    assert f"{VIDEOS - 6} videos already finished, 6 remaining" in caplog.text
    assert (tmp_path / "predictions.npz").read_bytes() == (
        undisturbed / "predictions.npz"
    ).read_bytes()


def test_two_processes_give_the_same_bytes(
    undisturbed: Path, common: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                "2",
            ),
            *(
                "tools/test_net.py",
                "--cfg",
                CONFIG,
                *common,
                f"out_dir={tmp_path}",
                "test.batch_size=3",
            ),
            "test.max_broken=0.1",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for name in ("results.json", "predictions.csv", "predictions.npz"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_killed_and_resumed_gives_the_same_bytes(
    undisturbed: Path, common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = [
        sys.executable,
        "tools/test_net.py",
        "--cfg",
        CONFIG,
        *common,
        f"out_dir={tmp_path}",
        "test.batch_size=3",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and len(list(tmp_path.glob(f"{PARTIAL}/*/*.npz"))) < 2:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    shards = sorted(tmp_path.glob(f"{PARTIAL}/*/*.npz"))
    assert 2 <= len(shards) < 5 and not (tmp_path / "predictions.npz").exists()
    shards[1].write_bytes(shards[1].read_bytes()[:-40])  # and one of them is cut short
    with caplog.at_level(logging.INFO):
        evaluate(tmp_path, common)
    kept = 3 * (len(shards) - 1)
    assert f"{shards[1].name}: damaged" in caplog.text
    assert f"{kept} videos already finished, {VIDEOS - kept} remaining" in caplog.text
    for name in ("results.json", "predictions.csv", "predictions.npz"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert not (tmp_path / PARTIAL).exists()


def test_names_in_another_order_are_refused_and_mapped_when_asked(
    undisturbed: Path, common: list[str], tmp_path: Path
) -> None:
    source = Path(common[0].partition("=")[2])
    moved = {"0": 2, "1": 0, "2": 1}  # b c a
    lines = [line.split() for line in source.read_text().splitlines()]
    (tmp_path / "list.csv").write_text("".join(f"{path} {moved[label]}\n" for path, label in lines))
    (tmp_path / "labels.txt").write_text("b\nc\na\n")
    elsewhere = [*common, f"data.test={tmp_path / 'list.csv'}", f"data.root={source.parent}"]
    with pytest.raises(ValueError, match=r"set test.remap_classes=true"):
        evaluate(tmp_path / "out", elsewhere)
    assert not (tmp_path / "out").exists()
    assert evaluate(tmp_path / "out", elsewhere, "test.remap_classes=true") == 3
    for name in ("predictions.csv", "predictions.npz"):
        assert (tmp_path / "out" / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_a_checkpoint_that_does_not_fit_is_one_line(common: list[str], tmp_path: Path) -> None:
    save_pretrained(create_model("mae_hiera_micro_16x32"), tmp_path / "mae")
    with pytest.raises(
        ValueError,
        match="has no classifier's head, so it cannot be tested; fine-tune from it first",
    ):
        evaluate(tmp_path / "out", common, f"test.checkpoint={tmp_path / 'mae'}")
    with pytest.raises(
        ValueError, match=r"has 3 classes, model.num_classes=4; leave model.num_classes unset or"
    ):
        evaluate(tmp_path / "out", common, "model.num_classes=4")
    save_pretrained(create_model("hiera_micro_16x32", num_classes=2), tmp_path / "two")
    with pytest.raises(
        ValueError,
        match=r"list.csv: has labels up to 2, .*two has 2 classes; correct the labels or",
    ):
        evaluate(tmp_path / "out", common, f"test.checkpoint={tmp_path / 'two'}")
    (tmp_path / "gone.csv").write_text("x.mp4 0\n")
    with pytest.raises(ValueError, match="none of its 1 videos can be read; see above"):
        evaluate(tmp_path / "out", common, f"data.test={tmp_path / 'gone.csv'}")
