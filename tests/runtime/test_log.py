"""`metrics.jsonl` has each step once, also after a kill; wandb gets the same numbers."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from hiera_video.errors import ConfigError
from hiera_video.runtime import log as log_module
from hiera_video.runtime.log import MetricLog, read_metrics, require_logger


def test_a_resumed_run_drops_rows_after_its_checkpoint(tmp_path: Path) -> None:
    log = MetricLog(tmp_path, first_step=0)
    for step in range(5):
        log.write(step, "train", loss=step / 2, loss_hex=(step / 2).hex())
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "spl')  # incomplete after a kill
    log = MetricLog(tmp_path, first_step=3)
    log.write(3, "train", loss=9.0)
    log.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[1]["loss_hex"] == "0x1.0000000000000p-1" and rows[3]["loss"] == 9.0
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_logger_that_is_missing_or_unsuitable_is_refused(tmp_path: Path) -> None:
    require_logger(None)
    with pytest.raises(
        ConfigError,
        match=r"train.logger=nowhere_found: not installed; pip install nowhere_found, or leave",
    ):
        require_logger("nowhere_found")
    with pytest.raises(
        ConfigError,
        match=r"train.logger=json: has no init, log, finish; choose a module with wandb's init",
    ):
        MetricLog(tmp_path, first_step=0, logger="json")


def test_without_wandb_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError,
        match=r"train.logger=wandb: not installed; pip install 'hiera-video\[wandb\]'",
    ):
        require_logger("wandb")


def test_a_module_like_wandb_receives_the_arguments_it_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second start in the same folder passes the same id."""
    calls: list[tuple[str, object]] = []

    class Module(ModuleType):
        def init(self, project: str, config: object, id: str, resume: str) -> None:
            calls.append(("init", (project, config, id, resume)))

        def log(self, numbers: dict[str, float], step: int) -> None:
            calls.append((f"log {step}", numbers))

        def finish(self) -> None:
            calls.append(("finish", None))

    monkeypatch.setitem(sys.modules, "likewandb", Module("likewandb"))
    monkeypatch.setattr(log_module, "require_logger", lambda name: None)
    for step in range(2):
        log = MetricLog(tmp_path, first_step=step, logger="likewandb", config={"optim.lr": 0.1})
        log.write(step, "train", loss=1.5, loss_hex=(1.5).hex())
        log.close()
    assert [name for name, _ in calls] == ["init", "log 0", "finish", "init", "log 1", "finish"]
    assert calls[0] == calls[3] and calls[0][1][:2] == ("hiera-video", {"optim.lr": 0.1})  # type: ignore[index]
    assert calls[1][1] == {"train/loss": 1.5}
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]


@pytest.mark.slow
def test_wandb_itself_writes_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = MetricLog(tmp_path, first_step=0, logger="wandb", config={"optim.lr": 0.25})
    for step in range(3):
        log.write(step, "train", loss=1.0 / (step + 1))
    log.close()
    (data,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert (tmp_path / "logger_id").read_text() in data.name
    # wandb's own process may write a moment after `finish` has returned
    deadline = time.monotonic() + 60
    while b"train/loss" not in (content := data.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b"train/loss" in content and b"optim.lr" in content


def test_damaged_lines_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Issue I, 4.11."""
    path, row = tmp_path / "metrics.jsonl", '{"step": 3, "split": "train"}'
    damaged = ("[]", "3", "{}", '{"step": "x", "split": "train"}', "\\xff{", "[" * 100_000)
    path.write_bytes("\n".join([row, *damaged, row, "{"]).encode() + b"\xff")
    assert [found["step"] for found in read_metrics(path)] == [3, 3]
    assert f"{path}: skipped 7 damaged lines, the first is line 2" in caplog.text
    caplog.clear()
    path.write_text(f"{row}\n{{")  # a kill
    assert len(read_metrics(path)) == 1 and not caplog.messages


def test_a_deleted_tensorboard_folder_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue I, 4.11."""

    class Board:
        def add_scalar(self, *_: object) -> None:
            raise FileNotFoundError(2, "No such file or directory", "tensorboard/events")

        close = add_scalar

    log = MetricLog(tmp_path, first_step=0)
    log._board = Board()
    log.write(0, "train", loss=1.0)
    log.write(1, "train", loss=0.5)
    log.close()
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 0.5]
    assert caplog.messages == [
        f"{tmp_path}/tensorboard cannot be written (No such file or directory); TensorBoard gets "
        "no more numbers, metrics.jsonl does"
    ]


def test_the_writing_thread_of_tensorboard_prints_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Issue I, 4.11: the real writer, whose folder is deleted."""
    others = threading.enumerate()  # other tests' writers among them
    log = MetricLog(tmp_path, first_step=0)
    log.write(1, "train", loss=1.0)
    (thread,) = (
        thread
        for thread in threading.enumerate()
        if hasattr(thread, "_next_flush_time") and thread not in others
    )
    while thread._next_flush_time == 0:  # it has not flushed its first number
        time.sleep(0.01)
    shutil.rmtree(tmp_path / "tensorboard")
    thread._next_flush_time = 0  # flush the next number too, instead of in two minutes
    log.write(2, "train", loss=1.0)
    thread.join(timeout=60)
    log.write(3, "train", loss=1.0)
    log.close()
    assert capsys.readouterr().err == ""
    assert caplog.text.count("TensorBoard gets no more numbers, metrics.jsonl does") == 1
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2, 3]


def test_a_tensorboard_that_does_not_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    MetricLog(tmp_path, first_step=0).close()
    assert "TensorBoard cannot be imported (ModuleNotFoundError: " in caplog.text


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    log = MetricLog(tmp_path, first_step=0)
    log._file = Path("/dev/full").open("w")  # noqa: SIM115 (every write to it fails with ENOSPC)
    with pytest.raises(OSError, match="No space") as full:
        log.write(0, "train", loss=1.0)
    assert full.value.filename == str(tmp_path / "metrics.jsonl")
