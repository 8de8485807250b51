"""One run per folder; a folder that cannot be written is refused before anything starts."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
from pathlib import Path

import pytest

from hiera_video.errors import ConfigError
from hiera_video.runtime.run_folder import lock_run_folder, write_environment


def test_a_second_run_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    refused = pytest.raises(
        ConfigError, match="another run is writing there; stop it or choose another out_dir"
    )
    with lock_run_folder(tmp_path / "run"), refused, lock_run_folder(tmp_path / "run"):
        pass
    with lock_run_folder(tmp_path / "run"):
        write_environment(tmp_path / "run")
    assert (tmp_path / "run" / "env.json").is_file()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = pytest.raises(
        ConfigError, match=re.escape("cannot be written (Not a directory); choose another out_dir")
    )
    with refused, lock_run_folder(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_with_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with caplog.at_level(logging.WARNING), lock_run_folder(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert caplog.messages == [
        f"out_dir={tmp_path / 'run'}: the file system does not support locks "
        f"({os.strerror(number)}); a second run there would not be refused, so start only one at a "
        "time"
    ]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"commands": 3}', b"\xff"])
def test_a_damaged_record_of_the_environment_is_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Issue I, 4.11."""
    path = tmp_path / "env.json"
    path.write_bytes(content)
    write_environment(tmp_path)
    write_environment(tmp_path)
    assert len(json.loads(path.read_text())["commands"]) == 2
    assert f"{path}: damaged (" in caplog.text and len(caplog.messages) == 1
