"""`hv.explain`: maps that belong to the frames, the class and the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hiera_video as hv
from hiera_video.config.catalogue import list_configs
from hiera_video.config.load import load_config
from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError, DecodeError, FeatureError
from hiera_video.explanations.colours import fit_colours
from hiera_video.models.factory import create_model
from hiera_video.workflows.explain import Method, class_index, explain_clip, middle_view
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
    clip, _ = middle_view(run.config, Record(path=str(films / "a.mp4"), label=None, row=0))
    with torch.inference_mode():
        logits = run.model(clip.unsqueeze(0))[0]
    assert found.target == logits.argmax()
    assert found.label == ("to the right", "to the left", "up")[found.target]
    assert found.logit == pytest.approx(float(logits.max()), abs=1e-5)
    assert found.maps.sum() + found.constant == pytest.approx(found.logit, abs=1e-5)


def test_a_class_is_chosen_by_index_or_name(run: LoadedRun, films: Path) -> None:
    by_name = hv.explain(run, films / "a.mp4", "up")
    by_index = hv.explain(run, films / "a.mp4", 2)
    assert class_index("2", ("to the right", "to the left", "up")) == 2
    assert class_index("2", ("2", "to the left", "up")) == 0
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
        (1.5, "evidence", "target=1.5: no such class; choose an index from 0 to 2, or a name"),
        ([1], "evidence", "target=a list: no such class; choose an index from 0 to 2, or a name"),
        (None, ["evidence"], "method=['evidence']: choose one of evidence, occlusion, rollout"),
        (None, "gradient", "method='gradient': choose one of evidence, occlusion, rollout"),
        (None, "attention", "query= is not set; name a place (t, h, w) of the block's output map"),
    ],
)
def test_mistakes(run: LoadedRun, films: Path, target: Any, method: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        hv.explain(run, films / "a.mp4", target, method)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"drawings": 3}, "unknown option 'drawings'; choose from draws, stage, store, block"),
        ({"stage": 0}, "stage=0: this model has stages 1 to 3"),
        ({"stage": 4}, "stage=4: this model has stages 1 to 3"),
        ({"stage": "a"}, "stage='a': this model has stages 1 to 3"),
        ({"method": "attention", "query": 3}, "query=3: must be a place (t, h, w) of the block's"),
    ],
)
def test_mistakes_in_options(run: LoadedRun, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        explain_clip(run, torch.zeros(3, 16, 32, 32), **{"method": "colours", **options})
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    ("method", "options", "unit", "shape"),
    [
        ("occlusion", {"draws": 32}, "logits", (8, 2, 2)),
        ("rollout", {}, "share", (8, 8, 8)),
        ("attention", {"query": (0, 1, 1)}, "share", (8, 4, 4)),
        ("colours", {}, "colour", (8, 2, 2, 3)),
        ("colours", {"stage": 1}, "colour", (8, 8, 8, 3)),
    ],
)
def test_methods(
    run: LoadedRun, method: Method, options: dict[str, Any], unit: str, shape: tuple[int, ...]
) -> None:
    clip = torch.randn(3, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    found = explain_clip(run, clip, "up", method, **options)
    assert (found.method, found.unit, found.maps.shape, found.target) == (method, unit, shape, 2)
    assert found.constant is None and (found.standard_error is None) == (method != "occlusion")
    with torch.inference_mode():
        logits = run.model(clip.unsqueeze(0))[0]
    assert found.logit == pytest.approx(logits[2].item(), abs=1e-5)
    assert found.probability == pytest.approx(logits.softmax(0)[2].item(), abs=1e-6)
    if unit == "share":
        assert found.maps.sum() == pytest.approx(1.0, abs=1e-5)
    if unit == "colour":
        assert (found.maps.min(), found.maps.max()) == (0.0, 1.0)


def test_occlusion_warns_that_parts_of_clips_are_beyond_the_training(
    run: LoadedRun, films: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hv.explain(run, films / "a.mp4", method="occlusion", draws=32)
    assert caplog.messages == [
        "occlusion: the classifier was trained on whole clips, so its answers for parts of one are "
        "beyond its training"
    ]


@pytest.mark.slow
def test_the_colours_of_a_store_are_those_of_its_windows(
    run_folder: Path, run: LoadedRun, films: Path, tmp_path: Path
) -> None:
    hv.extract_features(
        run_folder, films, tmp_path / "store", workers=0, pooling="none", stages=(2, 3)
    )
    clip = torch.randn(3, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    stored = explain_clip(run, clip, method="colours", stage=2, store=tmp_path / "store")
    alone = explain_clip(run, clip, method="colours", stage=2)
    assert stored.maps.shape == alone.maps.shape == (8, 4, 4, 3)
    assert not np.array_equal(stored.maps, alone.maps)
    with torch.no_grad():
        basis = fit_colours(hv.FeatureStore(tmp_path / "store").matrix("stage2").view(-1, 128))
        features = run.model.forward_intermediates(clip.unsqueeze(0), indices=[1])[0]  # type: ignore[operator]
    assert np.allclose(stored.maps, basis.colours(features[0]).numpy(), atol=1e-5)
    other = replace(run, model=create_model("hiera_micro_16x32", num_classes=3).eval())
    with pytest.raises(FeatureError) as error:
        explain_clip(other, clip, method="colours", store=tmp_path / "store")
    assert str(error.value).startswith(f"store={tmp_path / 'store'}: has other weights (")
    assert str(error.value).endswith("colours cannot be compared; extract with this run")


def test_a_masked_autoencoder_has_no_classes_to_explain(run: LoadedRun, films: Path) -> None:
    config = load_config(list_configs()["motion_hiera_micro_mae"])
    pretrained = replace(run, model=create_model("mae_hiera_micro_16x32"), config=config)
    with pytest.raises(ConfigError, match="masked pre-training has no classes to predict"):
        hv.explain(pretrained, films / "a.mp4")


def test_something_else_than_a_run(films: Path) -> None:
    with pytest.raises(ConfigError) as error:
        hv.explain(3, films / "a.mp4")  # type: ignore[arg-type]
    assert str(error.value) == ("run is 3; give the folder of a run, or the result of hv.load")


def test_an_unreadable_video_is_named(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DecodeError, match=r"broken\.mp4"):
        hv.explain(run_folder, tmp_path / "broken.mp4")
