"""Configuration files that are deep, endless, cyclic or huge: one line, in bounded time."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from hiera_video.config import load
from hiera_video.config.load import load_config

from .conftest import MOTION, refusal, write


def test_diamonds_of_bases_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I 4.1: each level of a diamond doubled the time."""
    write(tmp_path, "model: {name: hiera_micro_16x32}\nseed: 3", "0.yaml")
    for level in range(1, 30):
        write(tmp_path, f"_base_: [{level - 1}.yaml, {level - 1}.yaml]", f"{level}.yaml")
    read: list[Path] = []

    def count(path: Path) -> Any:
        read.append(path)
        return original(path)

    original = load._read_yaml
    monkeypatch.setattr(load, "_read_yaml", count)
    assert load_config(tmp_path / "29.yaml").seed == 3
    assert len(read) == 30


def test_a_base_that_two_bases_share_stands_where_it_is_reached_last(tmp_path: Path) -> None:
    """I 4.1: d, b, d, c, a, as before each file was read once."""
    write(tmp_path, "model: {name: hiera_micro_16x32}\nseed: 1", "d.yaml")
    write(tmp_path, "_base_: d.yaml\nseed: 2\nout_dir: b", "b.yaml")
    write(tmp_path, "_base_: d.yaml\ntest: {crops: 1}", "c.yaml")
    config = load_config(write(tmp_path, "_base_: [b.yaml, c.yaml]"))
    assert (config.seed, config.out_dir, config.test.crops) == (1, "b", 1)


def test_a_chain_of_2000_bases(tmp_path: Path) -> None:
    """I 4.2"""
    for number in range(2000):
        write(tmp_path, f"_base_: {number + 1}.yaml", f"{number}.yaml")
    assert refusal(tmp_path / "0.yaml").endswith(
        "100.yaml: more than 100 files extend each other with _base_; merge some"
    )


@pytest.mark.parametrize("depth", [100, 2_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("{a: ", "}"), ("[", "]"), ("- ", "")])
def test_deep_yaml(tmp_path: Path, depth: int, opening: str, closing: str) -> None:
    """I 4.2: a traceback, or beyond the C stack the end of the process."""
    value = opening * depth + "1" + closing * depth
    expected = "is nested too deeply; write `section: key: value` lines"
    assert refusal(write(tmp_path, value)).endswith(expected)
    assert refusal(MOTION, f"optim.lr={value}").endswith(expected)


def test_a_depth_that_the_parser_refuses_itself(tmp_path: Path) -> None:
    error = yaml.YAMLError("while increasing flow level\nexceeded maximum nesting depth")
    with mock.patch.object(yaml, "parse", side_effect=error):
        message = refusal(write(tmp_path, "seed: 1"))
    words = "x.yaml: not valid YAML: is nested too deeply; write `section: key: value` lines"
    assert message.endswith(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: " + "9" * 5000, "not valid YAML: contains a number of too many digits; shorten it"),
        ("optim: {lr: " + "9" * 400 + "}", "x.yaml: int too large to convert to float"),
        ("seed: 0x" + "f" * 5000, "seed: is a whole number of 20000 bits; must be below 2^63"),
        ("seed: " + "9" * 400, "seed: is a whole number of 1329 bits; must be below 2^63"),
        ("seed: !!timestamp abc", "not valid YAML: "),
    ],
)
def test_endless_numbers(tmp_path: Path, text: str, words: str) -> None:
    """I 4.2"""
    assert words in refusal(write(tmp_path, f"_base_: {MOTION}\n{text}"))


def test_long_overrides_are_quoted_in_part() -> None:
    """I 4.2"""
    message = refusal(MOTION, "seed=" + "9" * 5000)
    assert message == (f"'seed={'9' * 115}…': contains a number of too many digits; shorten it")


@pytest.mark.parametrize(
    "override",
    [
        "model.num_classes=10000000000: must be at most 1,000,000",
        "train.batch_size=99999999999: must be at most 1,048,576",
        "test.batch_size=99999999999: must be at most 1,048,576",
        "test.clips=1000000: must be at most 10,000",
        "test.crops=1000000: must be at most 1,000",
        "data.workers=1000000: must be at most 4,096",
        "data.background=1000000.0: must be at most 1,000",
        "optim.lora_rank=1000000: must be at most 1,024",
        "model.input_size=[16, 320000, 320000]: has more than 268,435,456 pixels a clip; lower it",
    ],
)
def test_sizes_that_ask_for_terabytes(override: str) -> None:
    """I 4.2"""
    assert refusal(MOTION, override.partition(": ")[0]) == override


def test_a_base_that_is_no_yaml_file_is_not_read(tmp_path: Path) -> None:
    """I 4.2: a message must not print another file's content."""
    secret = write(tmp_path, "root:x:0:0: secret", "passwd")
    (tmp_path / "link.yaml").symlink_to(secret)
    for name in (secret, "passwd", "link.yaml"):
        message = refusal(write(tmp_path, f"_base_: {name}"))
        assert message == (
            f"{secret}: is not a YAML file (named as _base_ in {tmp_path}/x.yaml); _base_ takes "
            "files that end in .yaml or .yml"
        )
