"""RELIABILITY V2: decord and torchcodec return the same upright frames, or refuse the file.

torchcodec is tested by `make test-torchcodec`, which installs it and sets TEST_TORCHCODEC=1.
"""

from __future__ import annotations

import builtins
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import BY_NAME, READABLE

from hiera_video.errors import ConfigError, DecodeError
from hiera_video.utils.text_files import count_of
from hiera_video.video import open_video
from hiera_video.video.pyav import PyAVReader

BACKENDS = ["decord", *(["torchcodec"] if os.environ.get("TEST_TORCHCODEC") else [])]
TOLERANCE = 12
"""Largest mean difference of a frame in grey levels, which comes from the conversion to RGB."""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", READABLE)
def test_backends_agree(corpus: dict[str, Path], videos: Any, name: str, backend: str) -> None:
    entry, path = BY_NAME[name], corpus[name]
    if backend in entry.refused_by:
        words = f"{backend} .*; set data.decoder=pyav"
        with pytest.raises(DecodeError, match=words) as caught, open_video(path, backend) as video:
            video.frames(range(len(video.times)))
        assert caught.value.reason == "backend"
        return
    with PyAVReader(str(path)) as reader, open_video(path, backend) as video:
        assert video.info == reader.info and video.times == reader.times and video.fps == reader.fps
        expected = reader.frames(range(len(reader.times))).astype(int)
        generator = random.Random(name)
        for indices in (list(range(len(expected))), generator.choices(range(len(expected)), k=7)):
            frames = video.frames(indices)
            assert frames.shape == expected[indices].shape and frames.dtype == np.uint8
            if entry.numbers is not None:
                assert videos.numbers(frames) == [entry.numbers[i] for i in indices]
            assert np.abs(frames - expected[indices]).mean(axis=(1, 2, 3)).max() < TOLERANCE
        assert video.frames([]).shape == (0, *expected.shape[1:])
        frames = count_of(len(expected), "frame")
        words = f"frame {len(expected)} does not exist; the video has {frames}"
        with pytest.raises(IndexError, match=words):
            video.frames([len(expected)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name",
    ["playlist.mp4", "ffconcat.mp4", "truncated_50.mp4", "pipe.mp4", "huge_picture.gif"],
)
def test_unsafe_files_never_reach_the_other_decoders(
    corpus: dict[str, Path], name: str, backend: str
) -> None:
    """decord, for one, opens the files that a playlist named .mp4 lists."""
    with pytest.raises(DecodeError) as caught:
        open_video(corpus[name], backend)
    assert caught.value.reason in BY_NAME[name].reasons


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("decord", r"decord is not installed; `pip install decord` \(only for Linux on x86-64\)"),
        (
            "torchcodec",
            r"torchcodec or FFmpeg's libraries are not installed; `apt-get install ffmpeg` and "
            r"`pip install 'hiera-video\[torchcodec\]'`, or set data.decoder=pyav",
        ),
    ],
)
def test_a_decoder_that_is_not_installed(
    corpus: dict[str, Path], backend: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.split(".")[0] == backend:
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=f"data.decoder={backend}: {words}"):
        open_video(corpus["h264_plain.mp4"], backend)
