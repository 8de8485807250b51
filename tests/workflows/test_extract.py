"""`hv.extract_features`: the models and the videos that it takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hiera_video as hv
from hiera_video.config.load import load_config
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import ConfigError, FeatureError
from hiera_video.models.hiera import Hiera
from hiera_video.workflows.extract import resolve_config

MICRO = "hiera_micro_16x32"


def extracted(run: Any, videos: Any, output: Path, **features: Any) -> hv.FeatureStore:
    return hv.extract_features(run, videos, output, workers=0, **features)


def test_every_form_of_a_run_gives_the_same_features(
    run_folder: Path, films: Path, tmp_path: Path
) -> None:
    """A second call on the same output resumes, so that its settings must be the same too."""
    run = hv.load(run_folder)
    expected = extracted(run_folder, films, tmp_path / "out")
    best = run_folder / "checkpoints/best"
    for other in (run, str(run_folder), best, hv.load(run_folder, "best")):
        store = extracted(other, films, tmp_path / "out")
        assert torch.equal(store.matrix(), expected.matrix())
    saved = run.save(tmp_path / "saved")
    for number, other in enumerate((saved, hv.load(saved))):
        store = extracted(other, films, tmp_path / f"saved{number}")
        assert torch.equal(store.matrix(), expected.matrix())
        assert store.metadata["pretrained"] == str(saved)  # where search finds the weights


def test_the_features_are_those_of_the_model_in_memory(
    run_folder: Path, films: Path, tmp_path: Path
) -> None:
    run = hv.load(run_folder)
    with torch.no_grad():
        run.model.patch_embed.proj.weight.mul_(2)  # type: ignore[operator, union-attr]
    changed = extracted(replace(run, source=None), films, tmp_path / "changed")
    assert not torch.equal(
        changed.matrix(), extracted(run_folder, films, tmp_path / "out").matrix()
    )
    with pytest.raises(FeatureError, match="has features of other settings"):
        extracted(run, films, tmp_path / "out")


def test_a_saved_masked_autoencoder_has_features(films: Path, tmp_path: Path) -> None:
    saved = hv.save_pretrained(hv.create_model(f"mae_{MICRO}"), tmp_path / "mae")
    expected = extracted(saved, films, tmp_path / "out", stages=[1, 2])
    again = extracted(hv.load(saved), films, tmp_path / "out", stages=range(1, 3))
    assert torch.equal(again.matrix("stage1"), expected.matrix("stage1"))


def test_weights_without_a_head_resume(films: Path, tmp_path: Path) -> None:
    """The head that they lack is newly initialised, in each call alike."""
    saved = hv.save_pretrained(hv.create_model(MICRO, num_classes=0), tmp_path / "saved")
    config = load_config("motion_hiera_micro", [f"model.pretrained={saved}"])
    for run, output in ((saved, "a"), (saved, "a"), (config, "b"), (config, "b")):
        drawn = torch.get_rng_state()
        assert len(extracted(run, films, tmp_path / output)) == 2
        assert torch.equal(torch.get_rng_state(), drawn)


def test_what_is_no_run(run_folder: Path, films: Path, tmp_path: Path) -> None:
    model, file = hv.load(run_folder).model, tmp_path / "sd.pt"
    torch.save(model.state_dict(), file)
    cases = {
        "run is a Hiera; give a folder, a config file, a Config or the result of hv.load": model,
        "run is None; give a folder": None,
        f"{file}: is a file of weights, which names no model; give a config file with "
        f"model.pretrained={file}, or in Python hv.load('{file}', model=…)": file,
        f"{films}: has no config.yaml; give the out_dir of a run, or a folder that run.save or "
        "hv.save_pretrained wrote": films,
    }
    for words, run in cases.items():
        with pytest.raises(ConfigError, match=f"^{re.escape(words)}"):
            extracted(run, films, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"^output is None; name the folder for the features$"):
        extracted(run_folder, films, None)  # type: ignore[arg-type]


def test_overrides_of_a_saved_model(random_model: Callable[[], Hiera], tmp_path: Path) -> None:
    saved = hv.save_pretrained(random_model(), tmp_path / "saved")
    config = resolve_config(saved, ("features.window=2", "data.workers=0"))
    assert (config.model.name, config.model.pretrained) == (MICRO, str(saved))
    assert (config.features.window, config.data.workers) == (2.0, 0)


def test_videos_are_given_in_every_form(run_folder: Path, films: Path, tmp_path: Path) -> None:
    """A list keeps its order when the extraction is resumed, and records their segments."""
    names = [films / "deep/b.mp4", str(films / "a.mp4")]
    for _ in range(2):
        store = extracted(run_folder, names, tmp_path / "list")
        assert [Path(path).name for path in store.paths()] == ["b.mp4", "a.mp4"]
    parts = [
        Record(path=str(films / "a.mp4"), label=None, row=9, start_seconds=start, end_seconds=end)
        for start, end in ((0.0, 1.0), (1.0, 2.0))
    ]
    for _ in range(2):
        store = extracted(run_folder, iter(parts), tmp_path / "parts")
        assert len(store) == 2 and not torch.equal(store[0].features, store[1].features)
    manifest = Manifest(
        records=tuple(parts[1:]), class_names=None, multi_label=False, source="a.csv"
    )
    for videos in (manifest, parts[1]):
        (video,) = extracted(run_folder, videos, tmp_path / f"{type(videos).__name__}")
        assert torch.equal(video.features, store[1].features)


def test_a_video_in_a_shard(run_folder: Path, shards_index: Path, tmp_path: Path) -> None:
    record = hv.read_manifest(str(shards_index)).records[0]
    store = extracted(run_folder, [record.source], tmp_path / "out")
    assert store.paths() == [record.path] and len(store[0].features)


@pytest.mark.parametrize(
    ("videos", "words"),
    [
        (None, "input is None; give a list of videos, a folder, a glob, a video, a manifest, or a"),
        (3, "input is 3; give a list of videos"),
        (b"a.mp4", "input is bytes; give a list of videos"),
        ([], "input is empty; give one or more videos"),
        ([None], "video is None; give the path of a file or folder of frames, a record of a list"),
        (np.zeros((1, 2)), "video is an array [2] of float64; give the path"),
    ],
    ids=str,
)
def test_videos_of_another_kind(run_folder: Path, tmp_path: Path, videos: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(words)}"):
        extracted(run_folder, videos, tmp_path / "out")


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"stages": 3}, r"^features.stages=3: must be a list of stages, such as \[3\]$"),
        ({"window": "two"}, "features.window: Value 'two' of type 'str' could not be converted"),
        ({"threads": 1.5}, "features.threads: Value '1.5' of type 'float' could not be converted"),
        ({"window": Path}, "^features.window is a type, which no configuration can hold"),
        ({"window": -1}, "features.window=-1.0: must be above 0 seconds"),
    ],
    ids=str,
)
def test_values_of_another_type(
    run_folder: Path, films: Path, tmp_path: Path, features: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        extracted(run_folder, films, tmp_path / "out", **features)
    assert "\n" not in str(caught.value)
