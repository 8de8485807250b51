"""The `--keys` reference: every configuration key with its default and meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hiera_video.cli.arguments import WIDTH, config_parser, expand_globs, keys
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
    words = f"^(the argument after )?{name} is empty: give a value, or"
    with pytest.raises(ConfigError, match=words):
        run_command(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "a.mp4", "--run", "r", "output=%s.csv"],
        ["predict", "a.mp4", "--run", "r", "--json", "%s.json"],
        ["predict", "a.mp4", "--run", "r", "--segments", "output=%s.eaf"],
        ["predict", "a.mp4", "--run", "r", "--boxes", "b.csv", "output=%s.mp4"],
        ["visualize", "input=a.mp4", "output=%s.png"],
        ["export", "--run", "r", "output=%s.onnx"],
        ["extract", "--cfg", "motion_hiera_micro", "model.pretrained=x", "input=a", "output=%s"],
    ],
)
@pytest.mark.parametrize("length", [300, 245])  # a temporary file has a longer name
def test_a_file_name_that_is_too_long_is_one_line(arguments: list[str], length: int) -> None:
    words = r"^output='a+…: cannot be written \(File name too long\); choose another name"
    with pytest.raises(ConfigError, match=words):
        run_command([text.replace("%s", "a" * length) for text in arguments])


def test_globs_are_expanded(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4", "c.txt", "[1].mp4", "1.mp4"):
        (tmp_path / name).touch()
    folder = str(tmp_path)
    assert expand_globs([f"{folder}/?.mp4", "x"]) == [
        *(f"{folder}/{name}.mp4" for name in ("1", "a", "b")),
        "x",
    ]
    assert expand_globs([f"{folder}/[1].mp4"]) == [f"{folder}/[1].mp4"]  # a file of that name
    with pytest.raises(ConfigError, match=r"/\*.avi: matches no file; correct the glob, and check"):
        run_command(["predict", f"{folder}/*.avi", "--run", "r"])
    with pytest.raises(ConfigError, match=r"/\*.avi: matches no file; correct the glob, and check"):
        run_command(["visualize", f"input={folder}/*.avi", "output=a.png"])


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
