"""The multi-view test: exact results in any setting, unreadable videos, checks of the checkpoint.

The predictions are the same bytes with one or two processes and after a kill; the same to 1e-6 with
another batch size; and close in half precision.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hiera_video.cli import test as command
from hiera_video.config.load import load_config
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import CheckpointError, ManifestError
from hiera_video.eval import forward
from hiera_video.eval.config import TestConfig
from hiera_video.eval.shards import EvalShardStore
from hiera_video.eval.views import Predictions
from hiera_video.models.compiled import compile_blocks
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.weights.load import Weights, from_pretrained
from hiera_video.models.weights.save import save_pretrained
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.video.encode import write_video
from hiera_video.workflows import test as workflow
from hiera_video.workflows.build import read_split
from hiera_video.workflows.train_components import make_evaluator

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/motion_hiera_micro.yaml")
NUM_VIDEOS, UNREADABLE = 20, (4, 13)
FILES = ("results.json", "predictions.csv", "predictions.npz")


@pytest.fixture(scope="module")
def common(
    tmp_path_factory: pytest.TempPathFactory, random_model: Callable[[], Hiera]
) -> list[str]:
    """Arguments of a 2×3 test of twenty videos, of which two are unreadable."""
    folder = tmp_path_factory.mktemp("exact")
    lines = []
    for row in range(NUM_VIDEOS):
        pixels = np.random.default_rng(row).integers(0, 255, (20 + row, 40, 48, 3), dtype=np.uint8)
        write_video(folder / f"{row}.mp4", pixels, fps=30)
        lines.append(f"{row}.mp4 {row % 3}\n")
    for row in UNREADABLE:
        (folder / f"{row}.mp4").write_bytes(b"no video at all")
    (folder / "list.csv").write_text("".join(lines))
    (folder / "labels.txt").write_text("a\nb\nc\n")
    save_pretrained(random_model(), folder / "model", class_names=["a", "b", "c"])
    return [
        *("--cfg", CONFIG, f"data.test={folder / 'list.csv'}", "data.workers=0"),
        *(f"test.checkpoint={folder / 'model'}", "test.clips=2", "test.crops=3"),
        "test.batch_size=3",
    ]


def evaluate(out: Path, common: list[str], *overrides: str) -> int:
    """Run the test in this process; return its exit code."""
    return command.main([*common, f"out_dir={out}", *overrides])


def probabilities(out: Path) -> np.ndarray:
    arrays = np.load(out / "predictions.npz")
    return Predictions(arrays["rows"], arrays["logits"], ()).probabilities()


def assert_same_files(out: Path, expected: Path, names: tuple[str, ...] = FILES) -> None:
    for name in names:
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.fixture(scope="module")
def reference(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted test in one process."""
    out = tmp_path_factory.mktemp("reference")
    assert evaluate(out, common) == 3  # two of twenty are over the limit of 5 %
    return out


def test_unreadable_videos_are_counted_and_results_are_reproducible(
    reference: Path, common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert evaluate(tmp_path, common, "test.max_broken=0.1") == 0
    assert "(evaluated 18 of 20)" in caplog.text and "row 4 is unreadable: " in caplog.text
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["evaluated"], results["of"]) == (18, 20)
    assert [(video["row"], video["reason"]) for video in results["broken"]] == [
        (4, "container"),
        (13, "container"),
    ]
    assert_same_files(tmp_path, reference)


def test_dry_run_writes_nothing(
    common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert evaluate(tmp_path / "out", common, "--dry-run") == 0
    assert "dry run: logits [videos, views, classes] [2, 6, 3]; nothing written" in caplog.text
    assert not (tmp_path / "out").exists()


def test_the_best_checkpoint_of_the_same_list_is_noted(
    common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing, model = (
        Path(argument.partition("=")[2])
        for argument in common
        if argument.startswith(("data.test=", "test.checkpoint="))
    )
    best = tmp_path / "best"
    best.symlink_to(model)
    overrides = (f"test.checkpoint={best}", f"data.val={listing}", "test.clips=1", "test.crops=1")
    with caplog.at_level(logging.INFO):
        evaluate(tmp_path / "out", common, *overrides)
    assert (
        "this checkpoint was selected by its accuracy on the same list, so the result is "
        f"optimistic; for an unbiased one set test.checkpoint={tmp_path / 'last'}"
    ) in caplog.messages
    assert "so the result is optimistic" in (tmp_path / "out" / "report.html").read_text()


def test_another_batch_size_changes_only_rounding(
    reference: Path, common: list[str], tmp_path: Path
) -> None:
    evaluate(tmp_path, common, "test.batch_size=8")
    found, expected = probabilities(tmp_path), probabilities(reference)
    assert np.abs(found - expected).max() <= 1e-6
    assert (np.argsort(-found, axis=1) == np.argsort(-expected, axis=1)).all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_and_recorded(
    reference: Path, common: list[str], tmp_path: Path, precision: str
) -> None:
    assert evaluate(tmp_path, common, f"test.precision={precision}") == 3
    gap = np.abs(probabilities(tmp_path) - probabilities(reference))
    assert 1e-6 < gap.max() <= 2e-2
    assert np.load(tmp_path / "predictions.npz")["logits"].dtype == np.float32
    for folder, expected in ((tmp_path, precision), (reference, "fp32")):
        assert json.loads((folder / "results.json").read_text())["precision"] == expected
    assert f"2×3 views per video, {precision} ·" in (tmp_path / "report.html").read_text()
    assert "2×3 views per video ·" in (reference / "report.html").read_text()


def test_validation_during_training_uses_the_precision_of_the_test(
    common: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = set()

    def recording(model: nn.Module, views: torch.Tensor, precision: str) -> torch.Tensor:
        used.add(precision)
        return forward.forward_logits(model, views, precision)

    monkeypatch.setattr("hiera_video.eval.evaluate.forward_logits", recording)
    overrides = common[2:]
    checkpoint = load_config(CONFIG, overrides).test.checkpoint
    model = from_pretrained(str(checkpoint))
    for precision in ("fp32", "bf16"):
        used.clear()
        config = load_config(CONFIG, [*overrides, f"test.precision={precision}"])
        evaluator = make_evaluator(config, read_split(config, "test"), SINGLE_PROCESS)
        assert evaluator is not None
        assert evaluator(model)["evaluated"] == NUM_VIDEOS - len(UNREADABLE)
        assert used == {precision}


def test_an_interrupted_test_resumes_only_in_the_same_precision(
    reference: Path,
    common: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    caplog.set_level(logging.INFO)
    # interrupt after the last shard, before the results are written
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(workflow, "write_results", interrupt)
        evaluate(tmp_path, common)
    evaluate(tmp_path, common, "test.precision=bf16")
    assert "already finished" not in caplog.text
    assert json.loads((tmp_path / "results.json").read_text())["precision"] == "bf16"
    assert np.abs(probabilities(tmp_path) - probabilities(reference)).max() > 1e-6
    evaluate(tmp_path, common)
    # the two shards of three videos with an unreadable one are computed again
    assert f"{NUM_VIDEOS - 6} videos already finished, 6 remaining" in caplog.text
    assert_same_files(tmp_path, reference, ("predictions.npz",))


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(
    reference: Path, common: list[str], tmp_path: Path
) -> None:
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    options = (f"out_dir={tmp_path}", "test.max_broken=0.1")
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "tools/test_net.py", *common, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert_same_files(tmp_path, reference)


KILLED = """
import os, signal, sys
from hiera_video.cli import test
from hiera_video.eval.shards import EvalShardStore

write, written = EvalShardStore.write, []

def write_then_die(store, videos, shard):
    write(store, videos, shard)
    written.append(videos)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

EvalShardStore.write = write_then_die
test.main(sys.argv[1:])
"""


@pytest.mark.fault
def test_a_killed_test_resumes_to_the_same_bytes(
    reference: Path, common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command_line = [sys.executable, "-c", KILLED, *common, f"out_dir={tmp_path}"]
    done = subprocess.run(command_line, cwd=ROOT, stderr=subprocess.DEVNULL, timeout=300)
    assert done.returncode == -signal.SIGKILL
    shards = sorted((tmp_path / workflow.PARTIAL).rglob("*.npz"))
    assert len(shards) == 2  # the second of three has an unreadable video and is not kept
    assert not (tmp_path / "predictions.npz").exists()
    shards[1].write_bytes(shards[1].read_bytes()[:-40])
    with caplog.at_level(logging.INFO):
        evaluate(tmp_path, common)
    assert f"{shards[1].name}: damaged" in caplog.text
    assert f"3 videos already finished, {NUM_VIDEOS - 3} remaining" in caplog.text
    assert_same_files(tmp_path, reference)
    assert not (tmp_path / workflow.PARTIAL).exists()


def test_classes_in_another_order(reference: Path, common: list[str], tmp_path: Path) -> None:
    source = Path(load_config(CONFIG, common[2:]).data.test or "")
    index = {"0": 2, "1": 0, "2": 1}  # b c a
    lines = [line.split() for line in source.read_text().splitlines()]
    (tmp_path / "list.csv").write_text("".join(f"{path} {index[label]}\n" for path, label in lines))
    (tmp_path / "labels.txt").write_text("b\nc\na\n")
    overrides = (f"data.test={tmp_path / 'list.csv'}", f"data.root={source.parent}")
    with pytest.raises(ManifestError, match=r"set test.remap_classes=true"):
        evaluate(tmp_path / "out", common, *overrides)
    assert not (tmp_path / "out").exists()
    assert evaluate(tmp_path / "out", common, *overrides, "test.remap_classes=true") == 3
    assert_same_files(tmp_path / "out", reference, ("predictions.csv", "predictions.npz"))


def test_a_checkpoint_that_does_not_fit(common: list[str], tmp_path: Path) -> None:
    save_pretrained(create_model("mae_hiera_micro_16x32"), tmp_path / "mae")
    save_pretrained(create_model("hiera_micro_16x32", num_classes=2), tmp_path / "two")
    (tmp_path / "gone.csv").write_text("x.mp4 0\n")
    for override, kind, words in (
        (
            f"test.checkpoint={tmp_path / 'mae'}",
            CheckpointError,
            "has no classification head, so it cannot be tested; fine-tune from it first",
        ),
        (
            "model.num_classes=4",
            CheckpointError,
            r"has 3 classes, model.num_classes=4; leave model.num_classes unset or",
        ),
        (
            f"test.checkpoint={tmp_path / 'two'}",
            ManifestError,
            r"list.csv: has labels up to 2, .*two has 2 classes; correct the labels or",
        ),
        (
            f"data.test={tmp_path / 'gone.csv'}",
            ManifestError,
            "none of its 1 video can be read; see above",
        ),
    ):
        with pytest.raises(kind, match=words):
            evaluate(tmp_path / "out", common, override)


def test_a_missing_view_is_a_bug(common: list[str]) -> None:
    config = load_config(CONFIG, common[2:])
    predictions = Predictions(np.array([0]), np.zeros((1, 5, 3), np.float32), ())
    with pytest.raises(RuntimeError, match="computed 5 views per video instead of 6"):
        workflow._check_predictions(predictions, read_split(config, "test"), config)


def test_a_checkpoint_of_one_class_is_refused() -> None:
    """I 3.3: its first accuracy was a traceback."""
    config = load_config(CONFIG, ["model.num_classes=null"])
    weights = Weights(source="runs/one", state={"head.projection.weight": torch.zeros(1, 8)})
    manifest = Manifest(records=(), class_names=None, multi_label=False, source="val.csv")
    with pytest.raises(CheckpointError, match="runs/one: has one class, so its accuracy says noth"):
        workflow.check_classes(config, weights, manifest)


@pytest.mark.parametrize(
    ("test", "device", "views", "expected"),
    [
        ({"precision": "bf16"}, "cuda", 100_000, True),
        ({"precision": "bf16"}, "cuda", 99_999, False),
        ({}, "cuda", 100_000, False),
        ({"precision": "bf16"}, "cpu", 100_000, False),
        ({"precision": "bf16", "compile": False}, "cuda", 100_000, False),
        ({"compile": True}, "cpu", 1, True),
    ],
)
def test_long_tests_on_a_gpu_are_compiled(
    test: dict[str, Any], device: str, views: int, expected: bool
) -> None:
    config = TestConfig(**test)
    assert workflow.should_compile(config, torch.device(device), num_views=views) is expected


@pytest.mark.slow
def test_a_compiled_test_differs_by_rounding_and_keeps_its_own_shards(
    reference: Path, common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a backend that starts faster."""
    reproducible: list[bool] = []

    def compile_fast(model: nn.Module, **options: bool) -> None:
        reproducible.append(options["reproducible"])
        compile_blocks(model, backend="aot_eager")

    monkeypatch.setattr(workflow, "compile_blocks", compile_fast)
    keys: list[dict[str, Any]] = []

    def make_store(folder: Path, key: dict[str, Any], records: Any) -> EvalShardStore:
        keys.append(key)
        return EvalShardStore(folder, key, records)

    monkeypatch.setattr(workflow, "EvalShardStore", make_store)
    evaluate(tmp_path, common, "test.compile=true")
    assert np.abs(probabilities(tmp_path) - probabilities(reference)).max() <= 1e-6
    assert reproducible == [True] and keys[0]["compiled"] is True
