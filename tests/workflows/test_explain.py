"""`hv.explain`: maps that belong to the frames, the class and the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import hiera_video as hv
from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.workflows.explain import explain_clip, middle_view
from hiera_video.workflows.load_run import LoadedRun, load


@pytest.fixture(scope="module")
def run(run_folder: Path) -> LoadedRun:
    return load(run_folder)


def test_evidence_is_of_the_clip_that_the_test_sees(run: LoadedRun, films: Path) -> None:
    found = hv.explain(run, films / "a.mp4")
    assert (found.method, found.unit, found.maps.shape) == ("evidence", "logits", (8, 2, 2))
    assert found.frames.shape == (16, 32, 32, 3) and found.frames.dtype == np.uint8
    # 32 frames at 16 per second: the middle 16 frames, 8 to 23
    assert found.clip_seconds == pytest.approx((0.5, 1.5))
    clip, _ = middle_view(run, Record(path=str(films / "a.mp4"), label=None, row=0))
    with torch.inference_mode():
        logits = run.model(clip.unsqueeze(0))[0]
    assert found.target == logits.argmax()
    assert found.label == ("to the right", "to the left", "up")[found.target]
    assert found.logit == pytest.approx(float(logits.max()), abs=1e-5)
    assert found.maps.sum() + found.constant == pytest.approx(found.logit, abs=1e-5)


def test_a_class_is_chosen_by_index_or_name(run: LoadedRun, films: Path) -> None:
    by_name = hv.explain(run, films / "a.mp4", "up")
    by_index = hv.explain(run, films / "a.mp4", 2)
    assert (by_name.target, by_name.label) == (2, "up")
    assert np.array_equal(by_name.maps, by_index.maps)


def test_a_record_is_explained_within_its_segment(run: LoadedRun, films: Path) -> None:
    record = Record(
        path=str(films / "a.mp4"), label=None, row=0, start_seconds=0.0, end_seconds=1.0
    )
    assert hv.explain(run, record).clip_seconds == pytest.approx((0.0, 1.0))


def test_the_frames_are_the_pixels_that_the_model_saw(run: LoadedRun) -> None:
    pixels = torch.randint(0, 256, (3, 16, 32, 32)).float()
    found = explain_clip(run, (pixels / 255 - 0.45) / 0.225)
    assert np.array_equal(found.frames, pixels.permute(1, 2, 3, 0).byte().numpy())
    assert found.clip_seconds is None


@pytest.mark.parametrize(
    ("target", "method", "words"),
    [
        ("upp", "evidence", "target='upp': no such class; did you mean 'up'?"),
        ("x", "evidence", "target='x': no such class; choose one of 'to the right', 'to the left'"),
        (3, "evidence", "target=3: no such class; choose an index from 0 to 2, or a name"),
        (-1, "evidence", "target=-1: no such class; choose an index from 0 to 2, or a name"),
        (None, "gradient", "method='gradient': choose one of evidence"),
    ],
)
def test_mistakes(run: LoadedRun, films: Path, target: object, method: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        hv.explain(run, films / "a.mp4", target, method)  # type: ignore[arg-type]
    assert str(error.value).startswith(words)


def test_an_unreadable_video_is_named(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DecodeError, match=r"broken\.mp4"):
        hv.explain(run_folder, tmp_path / "broken.mp4")
