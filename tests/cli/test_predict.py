"""Arguments of `predict`; most mistakes are reported before torch is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.cli import predict
from hiera_video.errors import ConfigError
from hiera_video.video.camera import camera_frames

WEBCAM = ["--run", "x", "--webcam", "/dev/video99"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "x"], "no input: give videos, folders, lists or --webcam /dev/video0"),
        (
            ["a.mp4", "--model", "hiera_micro_16x32"],
            "--model hiera_micro_16x32: needs --checkpoint: a file, folder, tag or hf-hub:owner",
        ),
        (
            ["a.mp4", "--model", "hiera_bse_16x224", "--pretrained", "x"],
            "unknown model; did you mean hiera_base_16x224",
        ),
        (
            ["a.mp4", "--run", "x", "--checkpoint", "other"],
            "--checkpoint other: must be best or last with --run; other weights go with --model",
        ),
        (["a.mp4", "--run", "x", "output=a.txt"], "output=a.txt: must end in .csv or .json"),
        (
            ["a.mp4", "--run", "x", "output=a.csv", "--csv", "b.csv"],
            "output=a.csv: a second .csv file; remove one of them",
        ),
        (["a.mp4", "--run", "x", "--topk", "0"], "--topk 0: must be 1 or more"),
        (
            ["a.mp4", "--run", "x", "--step", "1"],
            "--step 1.0: needs --window; give both, or neither",
        ),
        (
            ["a.mp4", "--run", "x", "--window", "clip", "--step", "nan"],
            "--step nan: must be seconds above 0",
        ),
        (
            ["a.mp4", "--run", "x", "--window", "long"],
            "--window long: must be seconds above 0, or clip",
        ),
        (
            ["a.mp4", "--run", "x", "--window", "inf"],
            "--window inf: must be seconds above 0, or clip",
        ),
        (WEBCAM, "--webcam /dev/video99: needs --window SECONDS"),
        ([*WEBCAM, "--window", "clip"], "--webcam /dev/video99: needs --window SECONDS"),
        ([*WEBCAM, "--window", "2", "a.mp4"], "takes no PATH, output=, --csv or --json"),
        ([*WEBCAM, "--window", "2", "--csv", "a.csv"], "takes no PATH, output=, --csv or --json"),
        ([*WEBCAM, "--window", "2"], "/dev/video99: no such camera"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        predict.main(arguments)


def test_what_is_not_a_camera(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    for device, words in (
        ("/dev/video99", r"--webcam /dev/video99: no such camera \(No such file .*\); available: "),
        (str(tmp_path / "a.mp4"), r"a.mp4: not a camera; pass a file or folder as PATH instead"),
        ("/dev/null", r"--webcam /dev/null: cannot be read as a camera \("),
    ):
        with pytest.raises(ConfigError, match=words):
            next(camera_frames(device))
