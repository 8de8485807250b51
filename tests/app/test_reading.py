"""Windows of an upload: which ones, the model's views of them, and the limits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiera_video.app.analysis import Analyser
from hiera_video.app.reading import (
    ClipSource,
    UploadReader,
    read_upload,
    spread_windows,
    thumbnail,
)
from hiera_video.app.uploads import AppLimits
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import DecodeError
from hiera_video.workflows.load_run import LoadedRun
from hiera_video.workflows.sliding_window import predict_windows

LIMITS = AppLimits(max_seconds=8.0)


def reader(run: LoadedRun, limits: AppLimits = LIMITS) -> UploadReader:
    return UploadReader(ClipSource(clip=run.config.clip, transform=run.transform), {}, limits)


def test_windows_are_side_by_side_or_spread() -> None:
    assert spread_windows(5, 2) == [(0, 2), (2, 4), (3, 5)]
    assert spread_windows(1, 2) == [(0, 1)]
    assert spread_windows(32, 2) == [(start, start + 2) for start in range(0, 32, 2)]
    spread = spread_windows(62, 2)
    assert spread == [(start, start + 2) for start in range(0, 61, 4)]


def test_pictures_are_scaled_down_alone() -> None:
    assert thumbnail(np.zeros((480, 640, 3), np.uint8)).shape == (96, 128, 3)
    assert thumbnail(np.zeros((1080, 2, 3), np.uint8)).shape == (1080, 2, 3)
    grey = thumbnail(np.full((192, 200, 3), 77, np.uint8))
    assert (grey.shape, grey.min(), grey.max()) == ((96, 100, 3), 77, 77)


def test_windows_are_those_of_predict(classifier: LoadedRun, videos: Any) -> None:
    path = videos.write("film.mp4", 150, fps=25)
    clip = classifier.config.clip  # 16 × 4 frames at 30 a second
    video = read_upload(reader(classifier), path, LIMITS)
    assert (video.width, video.height, video.fps, video.duration_seconds) == (64, 48, 25, 6)
    length = 16 * 4 / 30
    starts = [window.start_seconds for window in video.windows]
    assert starts == pytest.approx([0, length, 6 - length])
    assert [window.end_seconds for window in video.windows][1:] == [2 * length, 6]
    expected = list(predict_windows(classifier, path))
    found = Analyser(classifier, LIMITS).analyse(path)
    assert clip.frame_stride == 4
    for place, segment in enumerate(expected):
        ours = dict(zip(found.names, found.probabilities[place].tolist()))
        assert ours == pytest.approx(dict(segment.top_classes), abs=1e-6)
    # the picture is the middle frame
    middle = videos.numbers([video.windows[0].picture])[0]
    assert middle == 27  # the ninth of 16 places from 0 to 52.3, rounded down


def test_reasons_are_one_line(classifier: LoadedRun, videos: Any, tmp_path: Path) -> None:
    long = videos.write("long.mp4", 300, fps=30)
    junk = tmp_path / "junk.mp4"
    junk.write_text("not a video")
    for path, words in (
        (long, "is 10.0 s long, over the limit of 8 s; cut it, or raise --max-seconds"),
        (junk, "cannot be opened as a video"),
        (tmp_path / "none.mp4", "no such file"),
    ):
        with pytest.raises(DecodeError) as error:
            read_upload(reader(classifier), path, LIMITS)
        assert str(error.value).startswith(f"{path}: ") and words in str(error.value)


class HungReader(UploadReader):
    """Opens a file and never comes back."""

    def _read(self, path: str, video: Any) -> Any:
        while True:
            time.sleep(60)


@pytest.mark.fault
def test_a_hung_decoder_is_killed(classifier: LoadedRun, videos: Any) -> None:
    path = videos.write("film.mp4", 20)
    limits = AppLimits(read_seconds=0.5)
    source = ClipSource(clip=ClipConfig(), transform=classifier.transform)
    with pytest.raises(DecodeError) as error:
        read_upload(HungReader(source, {}, limits), path, limits)
    assert error.value.reason == "hung"
