"""`tools/export.py`: mistakes on the command line are reported before torch is imported."""

from __future__ import annotations

import re

import pytest

from hiera_video.cli.export import main
from hiera_video.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "hiera_tiny_16x224"], "--model hiera_tiny_16x224: needs --checkpoint: a file"),
        (["--run", "x", "--output", "m.pth"], "output=m.pth: must end in .pt2 or .onnx"),
        (["--run", "x", "--format", "pt2"], "output=m.onnx: must end in .pt2"),
        (
            ["--run", "x", "--output", "m.pt2", "--int8"],
            "--int8: needs ONNX; use an output= that ends in .onnx, not .pt2",
        ),
        (["--run", "x", "--clips", "0"], "--clips 0: must be 1 or more"),
        (
            ["--model", "mae_hiera_micro_16x32", "--pretrained", "none"],
            "a masked autoencoder draws random masks and returns a loss",
        ),
    ],
)
def test_wrong_arguments_are_rejected(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        main(["--output", "m.onnx", *arguments])
