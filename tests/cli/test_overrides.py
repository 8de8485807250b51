"""`key=value` beside the arguments of commands that use a trained model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hiera_video.cli import export, predict, search
from hiera_video.cli.overrides import split_overrides
from hiera_video.errors import ConfigError


def test_keys_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.a=1.mp4").touch()
    given = ["test.clips=1", "a.mp4", "data.decoder=decord", "take=2.mp4", "test.a=1.mp4"]
    assert split_overrides(given, "predict", ("test", "data")) == (
        ("test.clips=1", "data.decoder=decord"),
        ["a.mp4", "take=2.mp4", "test.a=1.mp4"],
    )


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        (
            predict,
            ["a.mp4", "--run", "x", "optim.lr=1"],
            "optim.lr=1: predict accepts keys of test, data and clip only; remove it",
        ),
        (predict, ["a.mp4", "--run", "x", "seed=1"], "seed=1: predict accepts keys of test, data"),
        (
            predict,
            ["a.mp4", "--run", "x", "test.checkpoint=last"],
            "test.checkpoint=last: use --checkpoint instead",
        ),
        (
            predict,
            ["a.mp4", "--run", "x", "data.follow_links=true"],
            "data.follow_links=true: use --follow-links instead",
        ),
        (
            predict,
            ["a.mp4", "--model", "hiera_micro_16x32", "--checkpoint", "x", "test.crop=1"],
            "'test.crop=1': unknown key 'test.crop'; did you mean 'test.crops'?",
        ),
        (
            export,
            ["--run", "x", "output=a.pt2", "test.clips=1"],
            "test.clips=1: export accepts keys of data and clip only; remove it",
        ),
        (
            export,
            ["--model", "m", "--checkpoint", "x", "output=a.pt2", "data.val=a"],
            "data.val=a: overrides a run's key; give --run DIR",
        ),
        (
            search,
            ["--store", "x", "--row", "0", "clip.num_frames=8"],
            "clip.num_frames=8: search accepts keys of data only; remove it",
        ),
    ],
)
def test_other_keys_are_refused(command: object, arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        command.main(arguments)  # type: ignore[attr-defined]
