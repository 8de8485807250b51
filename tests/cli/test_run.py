"""Errors of a command on the terminal."""

from __future__ import annotations

import errno
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError, StorageError


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


def test_errors_of_the_input_are_printed_once_a_node(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue I, 4.2: torchrun starts several processes, which find the same."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert code_and_stderr(capsys, ConfigError("optim.lr=-1: must be above 0")) == (2, "")
    found = code_and_stderr(capsys, StorageError("/data: the storage fails"))
    assert found == (2, "error: /data: the storage fails\n")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert code_and_stderr(capsys, ConfigError("lr=-1")) == (2, "error: lr=-1\n")


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


LIMITS = "the limit of open files is 2048: raise it (ulimit -n 4096) or lower data.workers"
AGAIN = ", then run the same command again\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), f"Too many open files; {LIMITS}"),
        (
            ImportError("libtorch.so: cannot open shared object file: Too many open files"),
            f"libtorch.so: cannot open shared object file: Too many open files; {LIMITS}",
        ),
        (
            MemoryError(),
            "out of memory; the limit of memory is 2 kB: raise it (ulimit -v unlimited)",
        ),
        (
            OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
            "Cannot allocate memory; the limit of memory is 2 kB: raise it (ulimit -v unlimited)",
        ),
        (
            OSError(errno.ESTALE, "Stale file handle", "/data/list.csv"),
            "/data/list.csv: Stale file handle; check that the disk is mounted and responds",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "a" * 9),
            "aaaaaaaaa: File name too long; choose a shorter name",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "out of memory on the GPU; lower test.batch_size (features.batch_size in extract), end "
            "other programs on it, or hide it (CUDA_VISIBLE_DEVICES=)",
        ),
    ],
)
def test_lack_of_resources_is_one_line_with_the_limit(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    words: str,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2048, 4096))
    assert code_and_stderr(capsys, error) == (2, f"error: {words}{AGAIN}")


def test_other_import_errors_keep_their_traceback() -> None:
    with pytest.raises(ImportError, match="no module"):
        run_tool(lambda: exec("raise ImportError('no module x')"))


def test_a_reader_that_has_gone_ends_the_command_quietly() -> None:
    script = (
        "from hiera_video.cli.run import run_tool\n"
        "run_tool(lambda: print(*range(100_000), sep='\\n') or 0)"
    )
    command = f"{sys.executable} -c {shlex.quote(script)} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")
