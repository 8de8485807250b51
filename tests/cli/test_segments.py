"""Arguments of `predict --segments` and `test --segments`; no mistake imports torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hiera_video.cli import predict, segments, test
from hiera_video.errors import ConfigError

SEGMENTS = ["a.mp4", "--run", "x", "--segments"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "x", "--segments"], "no input: give videos, folders or lists"),
        (["a.mp4", "--run", "x", "--threshold", "0.4"], "--threshold 0.4: goes with --segments"),
        (["a.mp4", "--run", "x", "--smooth", "1"], "--smooth 1.0: goes with --segments only"),
        (
            ["a.mp4", "--run", "x", "--min-seconds", "1"],
            "--min-seconds 1.0: goes with --segments only",
        ),
        ([*SEGMENTS, "--threshold", "1.5"], "--threshold 1.5: must be above 0 and at most 1"),
        ([*SEGMENTS, "--threshold", "nan"], "--threshold nan: must be above 0 and at most 1"),
        ([*SEGMENTS, "--smooth", "-1"], "--smooth -1.0: must be seconds, 0 or more"),
        ([*SEGMENTS, "--min-seconds", "inf"], "--min-seconds inf: must be seconds, 0 or more"),
        ([*SEGMENTS, "--step", "0"], "--step 0.0: must be seconds, above 0"),
        ([*SEGMENTS, "--window", "0"], "--window 0.0: must be seconds, above 0"),
        ([*SEGMENTS, "--window", "long"], "--window long: must be seconds above 0, or clip"),
        (
            [*SEGMENTS, "output=a.txt"],
            "output=a.txt: must end in .csv or .via.json or .json or .eaf or .html",
        ),
        (
            [*SEGMENTS, "output=a.eaf", "output=b.eaf"],
            "output=b.eaf: a second .eaf file; remove one of them",
        ),
        (["a.mp4", "--run", "x", "output=a.eaf"], "output=a.eaf: must end in .csv or .json"),
        (
            ["a.mp4", "--model", "hiera_micro_16x32", "--segments"],
            "--model hiera_micro_16x32: needs --checkpoint",
        ),
        (
            ["--webcam", "/dev/video9", "--run", "x", "--segments"],
            "--webcam /dev/video9: segments are found in files; use --window without --segments",
        ),
        ([*SEGMENTS, "--boxes", "b.csv"], "--boxes b.csv: does not go with --segments; remove one"),
        (
            [*SEGMENTS, "--start-seconds", "0"],
            "--start-seconds 0.0: does not go with --segments; remove one of them",
        ),
        ([*SEGMENTS, "--topk", "5"], "--topk 5: does not go with --segments; remove one of them"),
        (
            ["--run", "x", "--choose-thresholds", "l.csv", "--topk", "1"],
            "--topk 1: does not go with --choose-thresholds; remove one of them",
        ),
        (
            ["--model", "hiera_micro_16x32", "--checkpoint", "a", "--choose-thresholds", "l.csv"],
            "--choose-thresholds l.csv: keeps them in the folder of a run; give --run DIR",
        ),
        (
            ["a.mp4", "--run", "x", "--choose-thresholds", "l.csv"],
            "--choose-thresholds l.csv: takes no PATH, output= or --threshold; predict with",
        ),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        predict.main(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cfg", "motion_hiera_micro", "--segments"],
        ["--run", "x", "--segments", "--dry-run"],
        ["--run", "x", "--segments", "--checkpoint", "weights.pt"],
    ],
)
def test_a_test_of_segments_needs_a_run(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    config = Path(__file__).parents[2] / "configs/motion_hiera_micro.yaml"
    (tmp_path / "x/config.yaml").write_text(config.read_text())
    with pytest.raises(ConfigError, match=r"--segments: goes with --run DIR, --checkpoint best or"):
        test.main(arguments)


def test_pages_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(segments, "require_extra", asked.append)
    monkeypatch.setitem(sys.modules, "hiera_video.workflows.segments", None)
    for name in ("a.csv", "a.html"):
        with pytest.raises(ImportError):
            predict.main([*SEGMENTS, f"output={name}"])
    assert asked == ["train"]
