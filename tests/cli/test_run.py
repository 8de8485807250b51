"""Errors of a command on the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError


def code_and_stderr(
    capsys: pytest.CaptureFixture[str], error: BaseException
) -> tuple[int | str | None, str]:
    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_tool(main)
    return ended.value.code, capsys.readouterr().err


def test_user_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = code_and_stderr(capsys, ConfigError("optim.lr=-1: must be above 0"))
    assert found == (2, "error: optim.lr=-1: must be above 0\n")


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="No space") as full:
        Path("/dev/full").write_text("metrics")  # every write to it fails with ENOSPC
    assert code_and_stderr(capsys, full.value) == (
        2,
        "error: No space left on device; free disk space or choose another output folder, then run "
        "the same command again\n",
    )


def test_ctrl_c_prints_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_and_stderr(capsys, KeyboardInterrupt()) == (130, "")


def test_bugs_keep_their_traceback() -> None:
    def main() -> int:
        return int("no number")

    with pytest.raises(ValueError, match="no number"):
        run_tool(main)
    with pytest.raises(FileNotFoundError):
        run_tool(lambda: len(Path("/nowhere").read_text()))
