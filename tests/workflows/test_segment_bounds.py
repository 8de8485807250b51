"""Labelled segments outside their videos, or beyond their end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.errors import ManifestError
from hiera_video.video.encode import write_video
from hiera_video.workflows.segment_bounds import (
    check_headers,
    records_clipped,
    records_outside,
    refuse_outside,
    timed_records,
    warn_of_clipped,
)


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """A list beside its classes and a video of 2 s."""
    write_video(tmp_path / "film.mp4", np.zeros((32, 40, 48, 3), np.uint8), fps=16)
    (tmp_path / "labels.txt").write_text("jump\nbackground\n")
    return tmp_path / "list.csv"


def test_segments_that_start_beyond_the_end_are_an_error(listing: Path) -> None:
    lines = ["film.mp4 0 0 1", "", "film.mp4 0 2 3", "film.mp4 0 90 91.5", "film.mp4 1 90 95"]
    listing.write_text("\n".join(lines))
    manifest = read_manifest(str(listing))
    words = (
        rf"{listing}:3: segment 2 to 3 s lies outside {listing.parent}/film.mp4, 0.00 to 2.00 s; "
        "so does 1 more; correct the lines"
    )
    with pytest.raises(ManifestError, match=words):
        check_headers(manifest, timed_records(manifest), "pyav")
    listing.write_text("film.mp4 0 1.9 30\nmissing.mp4 0 8 9\nfilm.mp4 0\n")
    manifest = read_manifest(str(listing))
    check_headers(manifest, timed_records(manifest), "pyav")


def test_a_list_has_a_clock_that_may_start_before_the_first_frame(listing: Path) -> None:
    listing.write_text("film.mp4 0 0 1.4\nfilm.mp4 0 0 1.5\nfilm.mp4 0 3.4 9\n")
    manifest = read_manifest(str(listing))
    found = records_outside(manifest.records, 1.4, 3.4)
    assert [record.row for record, *_ in found] == [0, 2]
    with pytest.raises(ManifestError, match=r"list.csv:1: segment 0 to 1.4 s lies outside .* 1.40"):
        refuse_outside(manifest, found)


def test_segments_that_end_beyond_the_end_are_counted(
    listing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing.write_text("film.mp4 0 0 3\nfilm.mp4 0 0 3.5\nfilm.mp4 0 1 9\n")
    manifest = read_manifest(str(listing))
    found = records_clipped(manifest.records, 2.0)
    warn_of_clipped(manifest, found)
    warn_of_clipped(manifest, [])
    assert caplog.messages == [
        f"{listing}: 2 segments end beyond the end of the video and are clipped; first "
        f"{listing}:2: segment 0 to 3.5 s of {listing.parent}/film.mp4, which ends at 2.00 s"
    ]
