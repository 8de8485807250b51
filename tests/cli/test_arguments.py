"""What `--keys` prints: every key there is, with its default and what it means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hiera_video.cli.arguments import config_parser, keys
from hiera_video.config.load import flatten_config, load_config

ROOT = Path(__file__).parents[2]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        config_parser("").parse_intermixed_args(list(arguments))
    assert isinstance(ended.value.code, int | None)
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_every_key_is_told_with_a_default_that_can_be_written_so(tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text(
        "model: {name: hiera_micro_16x32}\nclip: {num_frames: 16}\n"
    )
    plain = flatten_config(load_config(tmp_path / "plain.yaml"))
    told = dict(keys())
    assert list(told) == list(plain)
    for key, text in told.items():
        head, _, meaning = text.partition("\n")
        assert head.startswith(f"{key}: ") and len(meaning.split()) >= 2, text
        default = head.removeprefix(f"{key}: ")
        if default != "(required)":
            assert flatten_config(load_config(tmp_path / "plain.yaml", [f"{key}={default}"])) == plain, (
                text
            )


def test_a_section_or_a_key_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = printed(capsys, "--keys", "optim")
    assert (
        code == 0
        and len(re.findall(r"^optim\.\w+: ", out, flags=re.MULTILINE))
        == len(out.split("\noptim."))
        > 8
    )
    assert "\ntrain." not in out and max(map(len, out.splitlines())) <= 118
    _, out, _ = printed(capsys, "--keys", "optim.lr")
    assert out.startswith("optim.lr: 0.0008\n    Peak learning rate, for the whole batch of a step")
    assert out.count("optim.") == 1
    assert printed(capsys, "--keys")[1].count("\n") > 200


def test_a_key_that_there_is_not_is_told_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = printed(capsys, "--keys", "optim.learning_rate")
    assert code == 2 and "--keys optim.learning_rate: no such key; " in err
    assert "did you mean 'train.batch_size'?" in printed(capsys, "--keys", "batch_size")[2]
