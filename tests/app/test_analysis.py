"""Answers of the page: classes, segments, explanations, reconstructions, nearest videos."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_client import LIMITS, NAMES, PARTS

import hiera_video as hv
from hiera_video.app import html
from hiera_video.app.analysis import Analyser, explanation_strips
from hiera_video.app.nearest import NearVideos
from hiera_video.app.page import TOO_SHORT, Actions, explain_error
from hiera_video.app.uploads import Uploads
from hiera_video.config.schema import Config
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.features.config import FeaturesConfig
from hiera_video.models.registry import ModelConfig
from hiera_video.workflows.load_run import LoadedRun

RECORDING = Path(__file__).parents[1] / "video" / "recordings" / "recorded_vp8.webm"


@pytest.fixture(scope="module")
def films(shared_videos: Any) -> Path:
    """Folder of three films of 2 s."""
    for number in range(3):
        shared_videos.write(f"near/{number}.mp4", 60, width=64 + 16 * number)
    folder: Path = shared_videos.folder / "near"
    return folder


@pytest.fixture(scope="module")
def store(saved_model: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    model = ModelConfig(name="hiera_micro_16x32", pretrained=str(saved_model))
    hv.extract_features(Config(model=model), films, folder, workers=0)
    return folder


def put(uploads: Uploads, video: Path) -> str:
    """Return the path of a video's copy that looks like an upload."""
    target = uploads.folder / "hash" / video.name
    target.parent.mkdir()
    target.write_bytes(video.read_bytes())
    return str(target)


def test_an_upload_is_answered_and_deleted(
    classifier: LoadedRun,
    autoencoder: LoadedRun,
    store: Path,
    films: Path,
    uploads: Uploads,
) -> None:
    analyser = Analyser(classifier, LIMITS, mae=autoencoder, near=NearVideos(str(store), LIMITS))
    actions = Actions(analyser, uploads, [])
    path = put(uploads, films / "1.mp4")
    found = dict(zip(PARTS, actions.upload(path, 0.5), strict=True))
    assert list(uploads.folder.iterdir()) == []
    analysis = found["state"]
    assert analysis.probabilities.shape == (1, 3)
    assert float(analysis.probabilities.sum()) == pytest.approx(1, abs=1e-6)
    assert "80×48, 30 fps, 2.0 s; one window" in found["answer"]
    assert found["timeline"].count("<img") == 1 and "0.0–2.0 s" in found["timeline"]
    assert found["evidence"].count("<img") == 3
    assert found["reconstruction"].count("<img") == 1
    # the upload is a video of the store
    assert found["near"].count("<img") == 1
    # more questions about the same answer
    others = {actions.evidence(analysis, target) for target in range(3)}
    assert len(others) == 3
    sheets = {actions.reconstruct(analysis, ratio) for ratio in (0.25, 0.5, 0.75)}
    assert len(sheets) == 3
    assert actions.reconstruct(analysis, 0.5) == found["reconstruction"]
    assert actions.evidence(None, 0) == actions.reconstruct(None, 0.5) == ""
    assert "choose a ratio between" in actions.reconstruct(analysis, 0.99)


def test_nearest_videos_are_those_of_search(store: Path, films: Path) -> None:
    near = NearVideos(str(store), LIMITS)
    results = near.find(near._extract(films / "2.mp4"))
    assert Path(results[0].path).name == "2.mp4"
    assert results[0].similarity == pytest.approx(1, abs=1e-5)
    assert sorted(Path(result.path).name for result in results) == ["0.mp4", "1.mp4", "2.mp4"]
    assert near.sheet(results).startswith(b"\x89PNG")
    missing = [replace(results[0], path=str(films / "gone.mp4"))]
    assert near.sheet(missing).startswith(b"\x89PNG")


def test_an_upload_shorter_than_a_window_of_the_store_is_classified(
    classifier: LoadedRun,
    saved_model: Path,
    films: Path,
    videos: Any,
    uploads: Uploads,
    tmp_path: Path,
) -> None:
    model = ModelConfig(name="hiera_micro_16x32", pretrained=str(saved_model))
    features = FeaturesConfig(window=1.0, tail="drop")
    config = Config(model=model, features=features)
    hv.extract_features(config, films, tmp_path / "store", workers=0)
    analyser = Analyser(classifier, LIMITS, near=NearVideos(str(tmp_path / "store"), LIMITS))
    path = put(uploads, videos.write("short.mp4", 20))
    found = dict(zip(PARTS, Actions(analyser, uploads, []).upload(path, 0.5), strict=True))
    assert "0.7 s; one window" in found["answer"]
    assert "this video is shorter than a window of the store" in found["near"]
    assert found["near"].count("<img") == 0


def test_a_video_that_the_store_cannot_read(store: Path, tmp_path: Path) -> None:
    """As with a store of another decoder."""
    (tmp_path / "broken.mp4").write_bytes(bytes(100))
    near = NearVideos(str(store), LIMITS)
    words = "this video cannot be read with the settings of the store"
    assert near.look_up(tmp_path / "broken.mp4") == words


def test_evidence_is_that_of_explain(classifier: LoadedRun, films: Path) -> None:
    analyser = Analyser(classifier, LIMITS)
    analysis = analyser.analyse(films / "0.mp4")
    found = analyser.explain(analysis, 1, "evidence")
    expected = hv.explain(classifier, films / "0.mp4", 1)
    assert found.label == NAMES[1]
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)
    assert found.constant is not None
    assert float(found.maps.sum() + found.constant) == pytest.approx(found.logit, abs=1e-5)
    assert all(len(strip) > 100 for strip in explanation_strips(found))


def test_segments_are_of_the_windows(classifier: LoadedRun, shared_videos: Any) -> None:
    film = shared_videos.write("app/six.mp4", 180)
    analysis = Analyser(classifier, LIMITS).analyse(film)
    assert len(analysis.video.windows) == 3
    assert len(analysis.top) == 3 and analysis.means[analysis.top[0]] == analysis.means.max()
    for segment in analysis.segments:
        assert 0 <= segment.start_seconds < segment.end_seconds <= 6.001
    text = html.timeline(analysis)
    assert ("Segments: none" in text) == (not analysis.segments)


def test_names_are_text(classifier: LoadedRun, films: Path) -> None:
    analysis = Analyser(classifier, LIMITS).analyse(films / "0.mp4")
    for part in (html.answer(analysis), html.timeline(analysis), html.failure("<b>&\x1b[31m")):
        tags = set(re.findall(r"<(\w+)", part))
        assert tags <= {"div", "p", "table", "tr", "th", "td", "img", "h2", "bdi"}, tags
        assert "\x1b" not in part
    assert "&lt;b&gt;up&lt;/b&gt;" in html.answer(analysis)
    assert f"<bdi>{html.text_of(analysis.names[analysis.top[0]])}</bdi> " in html.answer(analysis)


def test_errors_do_not_name_the_place_of_an_upload() -> None:
    path = "/tmp/hiera-video-app-x/hash/a.mp4"

    def words(error: Any) -> str:
        return explain_error(error, path, LIMITS)

    assert words(DecodeError(f"{path}: empty file", reason="empty")) == "the video: empty file"
    assert words(ConfigError(f"cannot read {path} now")) == "cannot read the video now"
    assert words(DecodeError(f"{path}: …", reason="hung")) == (
        "the video takes more than 60 s to decode; cut or compress it"
    )
    assert words(DecodeError(f"{path}: …", reason="crashed")) == (
        "the decoder crashes at this video; convert it to H.264 in MP4"
    )


def test_a_recording_of_a_browser_is_answered(classifier: LoadedRun, uploads: Uploads) -> None:
    actions = Actions(Analyser(classifier, LIMITS), uploads, [])
    found = dict(zip(PARTS, actions.record(put(uploads, RECORDING), 0.5), strict=True))
    assert "64×48, 13.07 fps, 1.9 s; one window" in found["answer"]
    assert found["evidence"].count("<img") == 3
    assert list(uploads.folder.iterdir()) == []


def test_a_recording_of_two_pictures_is_too_short(classifier: LoadedRun, uploads: Uploads) -> None:
    actions = Actions(Analyser(classifier, LIMITS), uploads, [])
    path = put(uploads, RECORDING)
    Path(path).write_bytes(RECORDING.read_bytes()[:320])
    found = dict(zip(PARTS, actions.record(path, 0.5), strict=True))
    assert TOO_SHORT in found["answer"] and found["state"] is None
    assert list(uploads.folder.iterdir()) == []


@pytest.mark.parametrize("reason", ["empty", "container", "no_video", "no_frames", "truncated"])
def test_a_recording_without_pictures_is_too_short(reason: str) -> None:
    error: Any = DecodeError("a.webm: …", reason=reason)
    words = "the recording is shorter than half a second; record two seconds or more"
    assert explain_error(error, "a.webm", LIMITS, is_recording=True) == words == TOO_SHORT
    assert explain_error(error, "a.webm", LIMITS) == "the video: …"


def test_models_that_do_not_suit(classifier: LoadedRun, autoencoder: LoadedRun) -> None:
    with pytest.raises(ConfigError, match="masked pre-training has no classes to predict"):
        Analyser(autoencoder, LIMITS)
    with pytest.raises(ConfigError) as error:
        Analyser(classifier, LIMITS, mae=classifier)
    assert str(error.value) == (
        "--mae runs/default: is no run of masked pre-training; give one, such as the run that "
        "--run was fine-tuned from"
    )
