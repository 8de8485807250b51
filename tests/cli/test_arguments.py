"""The `--keys` reference: every configuration key with its default and meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hiera_video.cli.arguments import WIDTH, config_parser, keys
from hiera_video.cli.main import run_command
from hiera_video.config.load import flatten_config, load_config
from hiera_video.errors import ConfigError


def print_keys(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        config_parser("train", "").parse_intermixed_args(["--keys", *arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_every_key_has_a_meaning_and_a_default_in_yaml(tmp_path: Path) -> None:
    cfg = tmp_path / "plain.yaml"
    cfg.write_text("model: {name: hiera_micro_16x32}\nclip: {num_frames: 16}\n")
    plain = flatten_config(load_config(cfg))
    printed = dict(keys())
    assert list(printed) == list(plain)
    overrides = []
    for key, text in printed.items():
        head, _, meaning = text.partition("\n")
        assert head.startswith(f"{key}: ") and len(meaning.split()) >= 2, text
        default = head.removeprefix(f"{key}: ")
        if default != "(required)":
            overrides.append(f"{key}={default}")
    assert flatten_config(load_config(cfg, overrides)) == plain


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["predict", "", "--run", "r"], "an argument"),
        (["predict", "input=", "--run", "r"], "input="),
        (["predict", "a.mp4", "--run", ""], "--run"),
        (["visualize", "input=", "output=q.png"], "input="),
        (["extract", "--run", "r", "input=", "output=x"], "input="),
        (["extract", "--run", "r", "input=a", "features.output="], "features.output="),
        (["export", "--run", "r", "output="], "output="),
        (["test", "--run", ""], "--run"),
        (["train", "--cfg", "motion_hiera_micro", ""], "an argument"),
        (["check-data", ""], "an argument"),
        (["search", "input=", "--store", "f"], "input="),
        (["prepare", "folder", "--videos", "", "--shards", "s"], "--videos"),
        (["prepare", "motion", "output="], "output="),
    ],
)
def test_an_empty_path_is_one_line(arguments: list[str], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is empty: give a value, or remove it"):
        run_command(arguments)


def test_a_section_or_a_key_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = print_keys(capsys, "optim")
    assert code == 0
    assert len(re.findall(r"^optim\.\w+: ", out, flags=re.MULTILINE)) > 8
    assert not re.findall(r"^(?!optim\.)\S+: ", out, flags=re.MULTILINE)
    assert max(map(len, out.splitlines())) <= WIDTH
    _, out, _ = print_keys(capsys, "optim.lr")
    assert (
        out.startswith("optim.lr: 0.0008\n    Peak learning rate") and out.count("optim.lr:") == 1
    )
    assert print_keys(capsys)[1].count("\n") > 200


def test_an_unknown_key_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = print_keys(capsys, "optim.learning_rate")
    assert code == 2 and "--keys optim.learning_rate: no such key; " in err
    assert "did you mean 'train.batch_size'?" in print_keys(capsys, "batch_size")[2]
