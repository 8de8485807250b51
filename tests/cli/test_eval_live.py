"""Predictions of a live stream: a file played as if live gets the answers that the file gets; no camera is one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hiera_video.config.load import load_config
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError
from hiera_video.models.factory import create_model
from hiera_video.video import open_video
from hiera_video.video.camera import camera_frames
from hiera_video.video.encode import write_video
from hiera_video.workflows.load_run import LoadedRun
from hiera_video.workflows.sliding_window import predict_live, predict_windows
from tools import predict


@pytest.fixture(scope="module")
def run() -> LoadedRun:
    config = load_config("configs/motion_hiera_micro.yaml")
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
    transform = EvalTransform(32, config.test.crops, config.augment.mean, config.augment.std)
    return LoadedRun(model=model, transform=transform, class_names=("a", "b", "c"), config=config)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4.5 s at 16 frames a second."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(
        path, np.random.default_rng(0).integers(0, 255, (72, 40, 48, 3), dtype=np.uint8), fps=16
    )
    return path


def live(path: Path, *, without: range = range(0)) -> Iterator[tuple[float, np.ndarray]]:
    with open_video(path) as video:
        frames = video.frames(range(len(video.times)))
        for place, time in enumerate(video.times):
            if place not in without:
                yield time - video.times[0], frames[place]


@pytest.mark.parametrize(("window", "step"), [(1.5, 0.5), (1.0, 1.0), (2.0, None), (0.5, 1.5)])
def test_a_file_played_as_if_live(
    run: LoadedRun, film: Path, window: float, step: float | None
) -> None:
    expected = list(predict_windows(run, film, window=window, step=step, topk=3))
    found = list(predict_live(run, live(film), window=window, step=step, topk=3))
    # the last stretch ends with the file: live, no frame beyond it comes
    whole = [
        part
        for part in expected
        if part.end_seconds < 4.49 and (part.start_seconds / (step or window)) % 1 == 0
    ]
    assert len(found) == len(whole) >= 2
    for one, other in zip(found, whole, strict=True):
        assert (one.start_seconds, one.end_seconds) == pytest.approx(
            (other.start_seconds, other.end_seconds)
        )
        assert [label for label, _ in one.answers] == [label for label, _ in other.answers]
        shares = [[share for _, share in part.answers] for part in (one, other)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-6)
    assert len({part.answers for part in found}) > 1


def test_what_ended_while_the_model_was_busy_is_passed_over(run: LoadedRun, film: Path) -> None:
    found = list(predict_live(run, live(film, without=range(20, 44)), window=0.5, step=0.5))
    starts = [part.start_seconds for part in found]
    # nothing from 1.25 to 2.75 s: then the stretch of 1 s is old, and the newest that has ended, of 2 s, is empty
    assert starts == [0.0, 0.5, 2.5, 3.0, 3.5]


def test_no_camera_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--webcam /dev/video99: no such camera \(No such file .*\); available: "
    ):
        next(camera_frames("/dev/video99"))
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(
        ConfigError, match=r"a.mp4: not a camera; pass a file or folder as PATH instead"
    ):
        next(camera_frames(str(tmp_path / "a.mp4")))
    with pytest.raises(ConfigError, match=r"--webcam /dev/null: cannot be read as a camera \("):
        next(camera_frames("/dev/null"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "x"], "nothing to look at: give videos, folders or --webcam /dev/video0"),
        (
            ["--run", "x", "--webcam", "/dev/video9"],
            "--webcam /dev/video9: goes with --window SECONDS",
        ),
        (
            ["a.mp4", "--run", "x", "--webcam", "/dev/video9", "--window", "2"],
            "without PATH, --csv and --json",
        ),
        (
            ["--run", "x", "--webcam", "/dev/video99", "--window", "2"],
            "/dev/video99: no such camera",
        ),
    ],
)
def test_arguments(monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["predict.py", *arguments])
    with pytest.raises(ConfigError, match=words):
        predict.main()
