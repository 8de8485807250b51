"""Predictions along a file and along a live stream."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_link import FakeLink

import hiera_video as hv
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video.encode import write_video
from hiera_video.workflows import sliding_window
from hiera_video.workflows.load_run import LoadedRun
from hiera_video.workflows.sliding_window import predict_live, predict_windows, window_starts


@pytest.fixture(scope="module")
def run(run_folder: Path) -> LoadedRun:
    return hv.load(run_folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 4.5 s at 16 fps."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (72, 40, 48, 3), dtype=np.uint8)
    write_video(path, frames, fps=16)
    return path


def stream(path: Path, *, dropped: range = range(0)) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the frames of a file as a camera would, without those in `dropped`."""
    with hv.open_video(path) as video:
        frames = video.frames(range(len(video.times)))
        for index, time in enumerate(video.times):
            if index not in dropped:
                yield time - video.times[0], frames[index]


def test_window_starts() -> None:
    assert window_starts(10, 4, 4) == [0, 4, 6]  # the last one ends with the video
    assert window_starts(8, 4, 2) == [0, 2, 4]
    assert window_starts(3, 4, 4) == [0]
    assert window_starts(8.1, 4, 4) == [0, 4]  # a tenth of a step may remain


def test_a_segment_is_one_clip_with_the_crops_of_the_test(run: LoadedRun, films: Path) -> None:
    # by default a segment has the length of the clip: 16 frames, 1 s
    segments = list(predict_windows(run, films / "a.mp4", step=0.5, topk=3))
    assert [(segment.start_seconds, segment.end_seconds) for segment in segments] == [
        (0, 1),
        (0.5, 1.5),
        (1, 2),
    ]
    with hv.open_video(films / "a.mp4") as video, torch.inference_mode():
        views = run.transform(video.frames(range(8, 24)))
        probabilities = run.model(views).softmax(dim=1).mean(dim=0).tolist()
    assert run.class_names is not None
    expected = dict(zip(run.class_names, probabilities, strict=True))
    assert dict(segments[1].top_classes) == pytest.approx(expected, abs=1e-6)


def test_a_gpu_gives_the_same_segments(
    run: LoadedRun, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it computes a segment the next is decoded, whose error comes in its place."""
    expected = list(predict_windows(run, film, window=1))
    links = []

    def make(device: torch.device) -> FakeLink:
        links.append(FakeLink(late=True, computes=True))
        return links[-1]

    monkeypatch.setattr("hiera_video.runtime.device_feed.device_link", make)
    assert list(predict_windows(run, film, window=1)) == expected and len(expected) == 5
    transform, frames_read = run.transform, []

    def fail_at_the_third(frames: np.ndarray) -> torch.Tensor:
        frames_read.append(len(frames))
        if len(frames_read) == 3:
            raise DecodeError("film.mp4: truncated", reason="truncated")
        return transform(frames)

    failing = replace(run, transform=fail_at_the_third)
    found = []
    with pytest.raises(DecodeError, match=r"film\.mp4: truncated"):
        found.extend(predict_windows(failing, film, window=1))
    assert found == expected[:2]
    assert [link.closed for link in links] == [True, True]


def test_segment_sampling_needs_a_window(run: LoadedRun, films: Path) -> None:
    clip = replace(run.config.clip, sampling="segments")
    sampled = replace(run, config=replace(run.config, clip=clip))
    with pytest.raises(ConfigError, match="its clips have no fixed length; set --window SECONDS"):
        next(predict_windows(sampled, films / "a.mp4"))
    segments = list(predict_windows(sampled, films / "a.mp4", window=1))
    assert [(segment.start_seconds, segment.end_seconds) for segment in segments] == [
        (0, 1),
        (1, 2),
    ]


def test_lengths_must_be_positive_and_finite(run: LoadedRun, films: Path) -> None:
    with pytest.raises(ConfigError, match=r"--step 0: must be above 0 seconds and finite"):
        next(predict_windows(run, films / "a.mp4", step=0))
    with pytest.raises(ConfigError, match=r"--window inf: must be above 0 seconds and finite"):
        next(predict_windows(run, films / "a.mp4", window=float("inf")))
    for name in ("step", "window"):
        words = rf"--{name} 1e-09: must be 0.001 seconds or more"
        with pytest.raises(ConfigError, match=words):
            next(predict_windows(run, films / "a.mp4", **{name: 1e-9}))
        words = rf"--{name} 0.03: is shorter than a frame of .*a.mp4; must be 0.04 seconds or more"
        with pytest.raises(ConfigError, match=words):  # 16 frames a second
            next(predict_windows(run, films / "a.mp4", **{name: 0.03}))
        next(predict_windows(run, films / "a.mp4", **{name: 0.04}))
    for window, step, words in (
        (1, 0, "--step 0: must"),
        (-1, None, "--window -1: must"),
        (1, 1e-4, "--step 0.0001: must be 0.001 seconds or more"),
    ):
        with pytest.raises(ConfigError, match=words):
            next(predict_live(run, [], window=window, step=step))


@pytest.mark.parametrize(("window", "step"), [(1.5, 0.5), (1.0, 1.0), (2.0, None), (0.5, 1.5)])
def test_a_live_stream_gets_the_predictions_of_the_file(
    run: LoadedRun, film: Path, window: float, step: float | None
) -> None:
    live = list(predict_live(run, stream(film), window=window, step=step, topk=3))
    # the file has one more segment, which ends with it: no later frame arrives in the stream
    expected = [
        segment
        for segment in predict_windows(run, film, window=window, step=step, topk=3)
        if segment.end_seconds < 4.49 and (segment.start_seconds / (step or window)) % 1 == 0
    ]
    assert len(live) == len(expected) >= 2
    for one, other in zip(live, expected, strict=True):
        assert one.start_seconds == pytest.approx(other.start_seconds)
        assert one.end_seconds == pytest.approx(other.end_seconds)
        assert [label for label, _ in one.top_classes] == [label for label, _ in other.top_classes]
        assert dict(one.top_classes) == pytest.approx(dict(other.top_classes), abs=1e-6)
    assert len({segment.top_classes for segment in live}) > 1


def test_segments_that_ended_while_the_model_was_busy_are_skipped(
    run: LoadedRun, film: Path
) -> None:
    # no frames from 1.25 to 2.75 s: then the segment at 1 s is old, and the newest that has ended,
    # at 2 s, has no frames
    segments = predict_live(run, stream(film, dropped=range(20, 44)), window=0.5, step=0.5)
    assert [segment.start_seconds for segment in segments] == [0.0, 0.5, 2.5, 3.0, 3.5]


@pytest.mark.fault
def test_a_segment_that_hangs_ends_with_the_deadline(
    run: LoadedRun, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue I, 4.11: as in training, the decoder is killed and the video named."""
    data = replace(run.config.data, deadline_seconds=2.0)
    run = replace(run, config=replace(run.config, data=data))
    opened = sliding_window.open_video

    def hang(path: str, backend: Any) -> Any:
        video = opened(path, backend)
        frames, calls = video.frames, list[int]()

        def hang_at_the_second(indices: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock
            return frames(indices)

        video.frames = hang_at_the_second
        return video

    monkeypatch.setattr(sliding_window, "open_video", hang)  # the forked worker inherits this
    words = r"film.mp4: kept a decoder busy beyond data.deadline_seconds"
    with pytest.raises(DecodeError, match=words) as error:
        list(predict_windows(run, film, window=0.5))
    assert error.value.reason == "hung"
