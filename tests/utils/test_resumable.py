"""Shards of a list: ranges, files, and claims of several processes."""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiera_video.errors import ConfigError
from hiera_video.utils.resumable import (
    ShardClaims,
    ShardFolder,
    claim_order,
    exclusive,
    file_state,
    identity_folder,
    shard_ranges,
)


@pytest.fixture
def shards(tmp_path: Path) -> ShardFolder:
    return ShardFolder(tmp_path, marker="json")


def finish(shards: ShardFolder, number: int) -> None:
    path, data = (shards.path(number, suffix) for suffix in (shards.marker, "npz"))
    path.parent.mkdir(parents=True, exist_ok=True)
    data.write_bytes(b"1234")
    path.write_text(json.dumps({"files": {data.name: {"bytes": 4}}}))


def test_ranges_cover_the_list() -> None:
    assert shard_ranges(5, 2) == [range(0, 2), range(2, 4), range(4, 5)]
    assert shard_ranges(0, 2) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda shards: shards.path(1, "npz").unlink(),
        lambda shards: shards.path(1, "npz").write_bytes(b""),
        lambda shards: shards.path(1, "npz").write_bytes(b"12"),
        lambda shards: shards.path(1, "json").write_bytes(b""),
        lambda shards: shards.path(1, "json").write_text('{"files": {"00000001.npz": 4}}'),
        lambda shards: shards.path(1, "json").write_text("[]"),
    ],
)
def test_shards_whose_files_are_damaged_are_computed_again(
    shards: ShardFolder, caplog: pytest.LogCaptureFixture, damage: Callable[[ShardFolder], None]
) -> None:
    for number in range(3):
        finish(shards, number)
    damage(shards)
    assert [shards.is_finished(number) for number in range(3)] == [True, False, True]
    claims = ShardClaims(shards, range(3))
    assert next(claims) == 1
    assert shards.finished() == [0, 2]  # as after an interruption
    (words,) = caplog.messages
    assert words.startswith(f"{shards.path(1, '').parent}: 00000001.")
    assert words.endswith(" missing or damaged; shard 1 is computed again")
    finish(shards, 1)
    claims.release(1)
    assert list(claims) == []


def test_an_empty_marker_is_damaged(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, marker="npz")
    assert not shards.is_finished(0)
    path = shards.path(0, "npz")
    path.parent.mkdir(parents=True)
    path.touch()
    assert not shards.is_finished(0)
    path.write_bytes(b"1")
    assert shards.is_finished(0)


def test_other_identities_have_other_folders(tmp_path: Path) -> None:
    folder = identity_folder(tmp_path, {"a": 1, "b": 2})
    assert folder == identity_folder(tmp_path, {"b": 2, "a": 1})
    assert folder != identity_folder(tmp_path, {"a": 1, "b": 3})


def test_file_state_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert file_state(str(path)) == []
    path.write_text("1")
    before = file_state(str(path))
    path.write_text("12")
    assert before[0] == 1 and file_state(str(path))[0] == 2


def test_finished_shards_have_a_marker(shards: ShardFolder) -> None:
    assert shards.path(1234, "npz") == shards.folder / "shards" / "00001" / "00001234.npz"
    for number in (1234, 5):
        finish(shards, number)
    assert shards.finished() == [5, 1234]
    assert shards.is_finished(5) and not shards.is_finished(6)


def test_partial_files_of_one_shard_are_removed(shards: ShardFolder) -> None:
    finish(shards, 5)
    for number in (5, 6):
        path = shards.path(number, "npz")
        path.with_name(f".{path.name}.77.partial").touch()
    shards.remove_partial(5)
    names = [path.name for path in shards.folder.rglob("*.partial")]
    assert names == [".00000006.npz.77.partial"]


def test_ranks_start_with_their_own_shards_and_help_the_others() -> None:
    assert list(claim_order(5, 0, 2)) == [0, 2, 4, 3, 1]
    assert list(claim_order(5, 1, 2)) == [1, 3, 4, 2, 0]
    assert list(claim_order(4, 0, 1)) == [0, 1, 2, 3]
    assert list(claim_order(1, 1, 2)) == [0]


def test_a_shard_is_claimed_once(shards: ShardFolder) -> None:
    first, second = (ShardClaims(shards, claim_order(8, rank, 2)) for rank in (0, 1))
    assert [next(first), next(second), next(first)] == [0, 1, 2]
    # the first rank's shards from their end, without those that it holds
    assert list(second) == [3, 5, 7, 6, 4]
    assert second.num_busy == 2 and list(first) == []
    first.release(0)
    assert next(ShardClaims(shards, range(8))) == 0  # it was not finished
    finish(shards, 2)
    first.release(2)
    assert 2 not in list(ShardClaims(shards, range(8)))


def test_without_locks_each_rank_claims_its_own_shards(
    shards: ShardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert list(ShardClaims(shards, claim_order(8, 1, 3), rank=1, world_size=3)) == [1, 4, 7]


def test_a_lock_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    refused = pytest.raises(ConfigError, match=r"^busy: wait$")
    with exclusive(path, "busy: wait"), refused, exclusive(path, "busy: wait"):
        pass
    assert not path.exists()
    path.touch()  # left by a process that was killed
    with exclusive(path, "busy"), pytest.raises(ConfigError), exclusive(path, "busy"):
        pass
    assert not path.exists()


def test_a_lock_on_a_deleted_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flock = tmp_path / ".lock", fcntl.flock
    deleted: list[Path] = []

    def delete_first(file: Any, operation: int) -> None:
        if not deleted:  # its holder ends between the opening and the lock
            path.unlink()
            deleted.append(path)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", delete_first)
    with exclusive(path, "busy"), pytest.raises(ConfigError), exclusive(path, "busy"):
        pass
    assert deleted


def test_without_locks_of_the_file_system_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with exclusive(tmp_path / ".lock", "busy"), exclusive(tmp_path / ".lock", "busy"):
        pass
