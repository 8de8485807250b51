"""Small JSON files of a run that are damaged in any way: no traceback (issue I, 4.2 and 4.11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hiera_video.config.load import load_config
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.prepare.motion import read_marker
from hiera_video.errors import CheckpointError, HieraVideoError
from hiera_video.eval.compare import compare
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.runtime.run_folder import write_environment
from hiera_video.train.checkpoint import read_meta
from hiera_video.train.memory import RECORD, read_choice
from hiera_video.workflows.info import describe_run
from hiera_video.workflows.test import is_validation_list, results_folder

MANIFEST = Manifest(records=(), class_names=None, multi_label=False, source="list.csv")
NUMBER = b"1" * 5000
CONTENTS = {
    "empty": b"",
    "cut": b'{"manifest": "li',
    "not text": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "long number": b'{"manifest": ' + NUMBER + b', "step": ' + NUMBER + b"}",
    "number": b"7",
    "null": b"null",
    "list": b"[[]]",
    "other types": b'{"manifest": [1], "lists": 3, "model": [], "step": {}, "commands": 3, '
    b'"accumulate": {}, "sha256": []}',
    "null values": b'{"manifest": null, "lists": {"val": 3}, "model": null, "step": null, '
    b'"commands": null, "accumulate": null, "sha256": null}',
}


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_damaged_files_beside_a_run(tmp_path: Path, content: bytes) -> None:
    written(tmp_path / "results.json", content)
    assert results_folder(tmp_path, MANIFEST) == tmp_path
    written(tmp_path / "env.json", content)
    write_environment(tmp_path)
    written(tmp_path / RECORD, content)
    assert read_choice(tmp_path, 8, SINGLE_PROCESS) is None
    assert read_marker(written(tmp_path / "marker", content)) != {"seed": 0}
    config = load_config("configs/motion_hiera_micro.yaml", [f"out_dir={tmp_path}"])
    config = replace(config, data=replace(config.data, test="other.csv"))
    written(tmp_path / "checkpoints/last/meta.json", content)
    assert not is_validation_list(config, str(tmp_path / "checkpoints/last"), MANIFEST)
    assert describe_run(tmp_path, config)[0] == f"{tmp_path}: no intact checkpoint"


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
@pytest.mark.parametrize(
    ("name", "read", "error"),
    [
        ("results.json", lambda path: compare(path, path), HieraVideoError),
        ("meta.json", lambda path: read_meta(path.parent), CheckpointError),
    ],
)
def test_damaged_files_that_a_command_needs(
    name: str,
    read: Callable[[Path], object],
    error: type[HieraVideoError],
    content: bytes,
    tmp_path: Path,
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(error, match=r"json: (damaged|cannot be compared) \("):
        read(path)
