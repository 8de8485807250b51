"""Persons that a detector finds; `tests/datasets/test_ava.py` tests the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.data.prepare.person_boxes import find_persons
from hiera_video.errors import ConfigError
from hiera_video.utils.resumable import exclusive


def test_two_commands_do_not_write_the_same_boxes(tmp_path: Path) -> None:
    nothing = BoxManifest(
        records=(), class_names=(), class_ids=(), multi_label=True, source="val.csv"
    )
    target, busy = tmp_path / "found.csv", r"found.csv: another command is writing it; wait for its"
    with exclusive(tmp_path / ".found.csv.lock", ""), pytest.raises(ConfigError, match=busy):
        find_persons(lambda _: [], nothing, target, start_seconds=0)
    assert find_persons(lambda _: [], nothing, target, start_seconds=0) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["found.csv"]
