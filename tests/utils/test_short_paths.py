"""Paths shortened to what tells them apart."""

from __future__ import annotations

from hiera_video.utils.short_paths import short_paths


def test_five_files_of_one_name() -> None:
    paths = [f"/data/{person}/run/8.mp4" for person in "abc"]
    assert list(short_paths([*paths, "/data/a/jump/8.mp4", "/data/a/9.mp4"]).values()) == [
        "a/run/8.mp4",
        "b/run/8.mp4",
        "c/run/8.mp4",
        "jump/8.mp4",
        "9.mp4",
    ]


def test_one_path_is_the_end_of_another() -> None:
    assert short_paths(["8.mp4", "a/8.mp4"]) == {"8.mp4": "8.mp4", "a/8.mp4": "a/8.mp4"}


def test_one_path_twice_and_spelt_differently() -> None:
    assert short_paths(["a/8.mp4", "a/8.mp4"]) == {"a/8.mp4": "8.mp4"}
    assert short_paths(["a/8.mp4", "a//8.mp4"]) == {"a/8.mp4": "a/8.mp4", "a//8.mp4": "a/8.mp4"}
    assert short_paths([]) == {}
