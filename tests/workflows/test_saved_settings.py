"""A saved model is tested as its run was: clips, views, normalisation, several labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import hiera_video as hv
from hiera_video.cli.average import main as average
from hiera_video.config.load import load_config, save_config
from hiera_video.config.schema import Config
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import ModelConfig
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.workflows.export_source import export_source_from_weights
from hiera_video.workflows.load_run import load

MICRO = "hiera_micro_16x32"
SETTINGS = [
    *("clip.sampling=segments", "clip.target_fps=null", "test.clips=1", "test.crops=1"),
    *("augment.mean=[0.5,0.5,0.5]", "augment.std=[0.25,0.25,0.25]"),
]


@pytest.fixture(scope="module")
def segments_run(
    tmp_path_factory: pytest.TempPathFactory, random_model: Callable[[], Hiera]
) -> Path:
    """A run of a model for segments of a video that have several labels."""
    folder = tmp_path_factory.mktemp("segments_run")
    config = load_config("motion_hiera_micro", [*SETTINGS, f"out_dir={folder}"])
    save_config(config, folder / "config.yaml")
    meta = {"model": {"num_classes": 3}, "class_names": ["a", "b", "c"], "multi_label": True}
    store = CheckpointStore(folder / "checkpoints", keep=1)
    store.save(1, random_model().state_dict(), {}, meta, best=True)
    return folder


def test_a_saved_run_predicts_as_the_run(segments_run: Path, films: Path, tmp_path: Path) -> None:
    folder = hv.load(segments_run).save(tmp_path / "model")
    saved = hv.load(folder)
    assert (saved.multi_label, saved.class_names) == (True, ("a", "b", "c"))
    assert (saved.config.clip.sampling, saved.config.clip.target_fps) == ("segments", None)
    assert (saved.config.test.clips, saved.config.test.crops) == (1, 1)
    assert saved.config.augment.mean == (0.5, 0.5, 0.5)
    assert hv.predict(saved, films / "a.mp4") == hv.predict(segments_run, films / "a.mp4")


def test_an_average_keeps_the_settings(segments_run: Path, tmp_path: Path) -> None:
    run, first, second = f"input={segments_run}", tmp_path / "first", tmp_path / "second"
    assert average([run, run, f"output={first}"]) == 0
    assert average([f"input={first}", run, f"output={second}"]) == 0
    for folder in (first, second):
        loaded = hv.load(folder)
        assert (loaded.multi_label, loaded.config.clip.sampling) == (True, "segments")


def test_a_program_describes_the_saved_settings(segments_run: Path, tmp_path: Path) -> None:
    folder = hv.load(segments_run).save(tmp_path / "model")
    source = export_source_from_weights(MICRO, str(folder), "logits")
    assert source.clip is not None
    assert (source.multi_label, source.clip.sampling) == (True, "segments")
    assert source.augment.std == (0.25, 0.25, 0.25)


def test_folders_without_settings_load_as_before(segments_run: Path, tmp_path: Path) -> None:
    folder = hv.load(segments_run).save(tmp_path / "model")
    facts = json.loads((folder / "hiera_video.json").read_text())
    del facts["settings"], facts["multi_label"]
    (folder / "hiera_video.json").write_text(json.dumps(facts))
    loaded = hv.load(folder)
    model = ModelConfig(name=MICRO, num_classes=3, input_size=(16, 32, 32))
    assert loaded.config == Config(model=model, clip=ClipConfig(num_frames=16))
    assert not loaded.multi_label


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"test.clips": 0}, r"test.clips=0: must be 1 or more"),
        ({"clip.sampling": "${oc.env:HOME}"}, r"a value has a \$"),
        ({"augment.mean": {"a": 1}}, r"augment.mean"),
        ([1], r"\[1\] is no object"),
    ],
)
def test_invalid_settings(segments_run: Path, tmp_path: Path, settings: Any, words: str) -> None:
    folder = hv.load(segments_run).save(tmp_path / "model")
    facts = json.loads((folder / "hiera_video.json").read_text())
    (folder / "hiera_video.json").write_text(json.dumps({**facts, "settings": settings}))
    message = rf"model: its hiera_video.json has invalid settings \(.*{words}.*\); save the model"
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_other_keys_have_no_effect(segments_run: Path, tmp_path: Path) -> None:
    folder = hv.load(segments_run).save(tmp_path / "model")
    facts = json.loads((folder / "hiera_video.json").read_text())
    facts["settings"]["out_dir"] = "elsewhere"
    (folder / "hiera_video.json").write_text(json.dumps(facts))
    assert load(folder).config.out_dir == "runs/default"


def test_action_detection_is_not_saved(segments_run: Path, tmp_path: Path) -> None:
    run = load(segments_run)
    detection = SimpleNamespace(train=SimpleNamespace(task="detect"), out_dir=run.config.out_dir)
    detector = replace(run, config=cast(Config, detection))
    words = r"segments_run\d: a run of action detection cannot be saved without its boxes; copy"
    with pytest.raises(ConfigError, match=words):
        detector.save(tmp_path)
