"""What a user sees when a tool cannot go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError


def told(capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[int, str]:
    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_tool(main)
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


def test_what_the_user_s_input_caused_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, ConfigError("optim.lr=-1: must be above 0")) == (
        2,
        "error: optim.lr=-1: must be above 0\n",
    )


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="No space") as full:
        Path("/dev/full").write_text("metrics")  # Linux's disk without room
    code, line = told(capsys, full.value)
    assert code == 2
    assert line == (
        "error: No space left on device; free disk space or choose another output folder, then run the same "
        "command again\n"
    )


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, KeyboardInterrupt()) == (130, "")


def test_a_defect_stays_a_traceback() -> None:
    def main() -> int:
        return int("no number")

    with pytest.raises(ValueError, match="no number"):
        run_tool(main)
    with pytest.raises(FileNotFoundError):
        run_tool(lambda: len(Path("/nowhere").read_text()))
