"""`hv.load` and `hv.predict`: runs, published weights, and what cannot be loaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import hiera_video as hv
from hiera_video.config.load import load_config, save_config
from hiera_video.data.manifest.record import Record
from hiera_video.errors import CheckpointError, ConfigError, DecodeError, HieraVideoError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import config_for
from hiera_video.models.weights.save import save_pretrained
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.workflows.export_source import export_source_from_weights
from hiera_video.workflows.load_run import LoadedRun, load, override_run, top_classes
from hiera_video.workflows.sliding_window import predict_live, predict_windows

MICRO = "hiera_micro_16x32"
NAMES = ("up", "down", "round")


def test_a_prediction_has_the_times_of_its_clips(run_folder: Path, films: Path) -> None:
    run = hv.load(run_folder)
    predictions = hv.predict(run, films / "a.mp4", topk=3)
    assert len({prediction.clip_seconds for prediction in predictions}) == 1
    clips = predictions[0].clip_seconds
    assert len(clips) == run.config.test.clips
    assert (clips[0][0], clips[-1][1]) == (0, 2)
    assert sum(prediction.probability for prediction in predictions) == pytest.approx(1)
    with pytest.raises(DecodeError, match=r"notes.txt"):
        hv.predict(run, films / "notes.txt")


def test_every_prediction_computes_in_the_precision_of_the_test(
    run_folder: Path, films: Path
) -> None:
    run, film = hv.load(run_folder), films / "a.mp4"
    test = replace(run.config.test, precision="bf16")
    half = replace(run, config=replace(run.config, test=test))
    with hv.open_video(film) as video:
        frames = list(zip(video.times, video.frames(range(len(video.times)))))

    def predictions(run: LoadedRun) -> Iterator[dict[str, float]]:
        yield {item.label: item.probability for item in hv.predict(run, film, topk=3)}
        for segment in predict_windows(run, film, topk=3):
            yield dict(segment.top_classes)
        for segment in predict_live(run, iter(frames), window=1, topk=3):
            yield dict(segment.top_classes)

    pairs = list(zip(predictions(run), predictions(half), strict=True))
    assert len(pairs) == 1 + 2 + 1
    for exact, rounded in pairs:
        assert rounded != exact and rounded == pytest.approx(exact, abs=2e-2)
        assert sum(rounded.values()) == pytest.approx(1, abs=1e-6)


def test_multi_label_probabilities_are_independent(run_folder: Path) -> None:
    run = replace(hv.load(run_folder), multi_label=True)
    logits = torch.tensor([[0.0, 2.0, -2.0], [0.0, 2.0, -2.0]])
    expected = {"to the right": 0.5, "to the left": 0.8807971, "up": 0.1192029}
    assert dict(top_classes(run, logits, 3)) == pytest.approx(expected)


def test_a_class_without_a_name_gets_its_index(run_folder: Path) -> None:
    run = replace(hv.load(run_folder), class_names=("to the right", "to the left"))
    found = top_classes(run, torch.tensor([[0.0, 1.0, 2.0]]), 3)
    assert [label for label, _ in found] == ["2", "to the left", "to the right"]


def test_a_run_without_validation_uses_its_last_checkpoint(
    run_folder: Path, films: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder, symlinks=True)
    (folder / "checkpoints" / "best").unlink()
    assert hv.predict(folder, films / "a.mp4") == hv.predict(run_folder, films / "a.mp4")
    with pytest.raises(CheckpointError, match="the run has no 'best' checkpoint yet"):
        hv.load(folder, "best")


def test_a_damaged_checkpoint_is_an_error(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder, symlinks=True)
    meta = folder / "checkpoints/best/meta.json"
    words = r"checkpoints/best: its meta.json is damaged \(.*; load the run's last"
    for content in (meta.read_text()[:40], "[]", "{}"):
        meta.write_text(content)
        with pytest.raises(CheckpointError, match=words):
            hv.load(folder)


@pytest.mark.parametrize("names", [None, ["to the left", "to the right"]])
def test_masked_pretraining_has_no_classes(
    films: Path, tmp_path: Path, names: list[str] | None
) -> None:
    config = Path(__file__).parents[2] / "configs/motion_hiera_micro_mae.yaml"
    save_config(load_config(config), tmp_path / "config.yaml")
    model = hv.create_model("mae_hiera_micro_16x32")
    meta = {"model": {"num_classes": None}, "class_names": names}  # the list may name classes
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    store.save(1, model.state_dict(), {}, meta, best=True)
    run = hv.load(tmp_path)
    assert run.class_names is None
    words = "masked pre-training has no classes to predict; fine-tune from it first"
    with pytest.raises(ConfigError, match=words):
        hv.predict(run, films / "a.mp4")
    with pytest.raises(ConfigError, match=words):
        next(predict_windows(run, films / "a.mp4", window=1))


def test_a_custom_task_whose_list_names_other_classes(
    run_folder: Path, films: Path, tmp_path: Path
) -> None:
    """Such names were stored before; the classes of the model are other ones."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder, symlinks=True)
    path = folder / "checkpoints/best/meta.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "class_names": [f"class {i}" for i in range(8)]}))
    run = hv.load(folder)
    assert run.class_names is None
    assert {item.label for item in hv.predict(run, films / "a.mp4")} == {"0", "1", "2"}


def test_arguments_of_another_kind(run_folder: Path, films: Path) -> None:
    words = r"run is a Hiera; give the folder of a run, or the result of hv.load"
    with pytest.raises(ConfigError, match=words):
        hv.predict(hv.load(run_folder).model, films / "a.mp4")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"the run has no 'final' checkpoint yet"):
        hv.load(run_folder, which="final")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call", [hv.predict, hv.explain, hv.predict_segments], ids=lambda call: call.__name__
)
def test_videos_that_are_no_paths(call: Callable[..., Any], run_folder: Path) -> None:
    values = {"None": None, "bytes": b"a.mp4", "an array [2] of uint8": np.zeros(2, np.uint8)}
    for named, video in values.items():
        words = (
            f"video is {named}; give the path of a file or folder of frames, a record of a list, "
            "or a ShardVideo"
        )
        with pytest.raises(ConfigError, match=f"^{re.escape(words)}$"):
            call(run_folder, video)


@pytest.mark.parametrize("topk", [-1, 0, None, True, 2.5, "3"], ids=str)
def test_numbers_of_classes(run_folder: Path, films: Path, topk: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^topk={topk!r}: must be an integer, 1 or more$"):
        hv.predict(run_folder, films / "a.mp4", topk=topk)
    assert len(hv.predict(run_folder, films / "a.mp4", topk=np.int64(2))) == 2  # type: ignore[arg-type]


def test_what_is_no_run(run_folder: Path, tmp_path: Path) -> None:
    model, file = hv.load(run_folder).model, tmp_path / "sd.pt"
    torch.save(model.state_dict(), file)
    words = (
        "give the folder of a run or of a saved model, hf-hub:owner/name, or weights with model="
    )
    for named, run in {"None": None, "a Hiera": model, "bytes": b"x", "''": ""}.items():
        with pytest.raises(ConfigError, match=f"^run is {named}; {words}$"):
            hv.load(run)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^model is 3; give a name of hv.list_models\(\)$"):
        hv.load(file, model=3)  # type: ignore[arg-type]
    words = (
        f"{file}: is a file, and a run is a folder; weights in a file need the name of their "
        f"model: hv.load('{file}', model='hiera_base_16x224')"
    )
    for call in (hv.load, lambda run: hv.predict(run, "a.mp4")):
        with pytest.raises(CheckpointError, match=f"^{re.escape(words)}$"):
            call(file)
    assert hv.load(file, model=MICRO).model.num_classes == 3
    words = r"is no run \(no config.yaml\) and no saved model \(no config.json\); name the folder"
    for folder in (tmp_path, run_folder / "checkpoints"):
        with pytest.raises(CheckpointError, match=f"{folder}: {words}"):
            hv.load(folder)


def test_a_checkpoint_of_a_run_is_loaded(run_folder: Path, films: Path) -> None:
    best = run_folder / "checkpoints/best"
    run = hv.load(best)
    assert (run.class_names, run.source) == (hv.load(run_folder).class_names, str(best))
    assert hv.predict(best, films / "a.mp4") == hv.predict(run_folder, films / "a.mp4")
    assert hv.load(best, "best").source == hv.load(run_folder, "best").source == str(best)
    words = f"which='last': {best} is a checkpoint already; leave which out, or name {run_folder}"
    with pytest.raises(ConfigError, match=f"^{re.escape(words)}$"):
        hv.load(best, "last")


@pytest.mark.parametrize(
    ("weights", "precision", "works"),
    [
        (torch.float16, "fp32", False),
        (torch.float64, "bf16", False),
        (torch.float16, "bf16", False),
        (torch.bfloat16, "bf16", True),
    ],
    ids=str,
)
def test_weights_of_another_type(
    run_folder: Path, films: Path, tmp_path: Path, weights: torch.dtype, precision: str, works: bool
) -> None:
    run, film = override_run(hv.load(run_folder), [f"test.precision={precision}"]), films / "a.mp4"
    run.model.to(weights)
    name = str(weights).removeprefix("torch.")
    words = (
        rf"^the model's weights are {name}, which do not go with precision {precision}; call "
        r"run.model.float\(\), and choose half precision by test.precision"
    )
    with nullcontext() if works else pytest.raises(ConfigError, match=words):
        assert len(hv.predict(run, film)) == 3
    with nullcontext() if works else pytest.raises(ConfigError, match=words):
        hv.predict_segments(run, film, window=1)
    with pytest.raises(ConfigError, match=f"weights are {name}, .* precision fp32"):
        hv.explain(run, film)
    with pytest.raises(ConfigError, match=f"weights are {name}, .* precision fp32"):
        hv.extract_features(run, film, tmp_path / "out", workers=0)


def test_records_and_the_name_of_the_argument(
    run_folder: Path, films: Path, shards_index: Path
) -> None:
    """`predict`, `explain` and `predict_segments` take the same videos under the same name."""
    run, film = hv.load(run_folder), films / "a.mp4"
    record = Record(path=str(film), label=None, row=7, start_seconds=0.0, end_seconds=0.5)
    assert hv.predict(run, video=film) == hv.predict(run, str(film))
    for call in (hv.predict, hv.explain, hv.predict_segments):
        assert call(run, video=record)  # type: ignore[operator]
    assert hv.predict(run, record)[0].clip_seconds != hv.predict(run, film)[0].clip_seconds
    inside = hv.read_manifest(str(shards_index)).records[0]
    assert hv.predict(run, inside.source) == hv.predict(run, inside)


def test_weights_without_a_run(
    random_model: Callable[[], Hiera],
    films: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A folder with class names, a file with only tensors, and one of Kinetics-400's size."""
    model, film = random_model(), films / "a.mp4"
    named = hv.load(hv.save_pretrained(model, tmp_path / "named", class_names=NAMES), model=MICRO)
    assert named.class_names == NAMES
    assert (named.config.test.clips, named.config.test.crops) == (5, 3)
    expected = [prediction.label for prediction in hv.predict(named, film, topk=3)]
    torch.save({"model_state": model.state_dict()}, tmp_path / "bare.pth")
    bare = hv.predict(hv.load(tmp_path / "bare.pth", model=MICRO), film, topk=3)
    assert [NAMES[int(prediction.label)] for prediction in bare] == expected
    kinetics = hv.create_model(MICRO, num_classes=400)
    torch.save(kinetics.state_dict(), tmp_path / "k400.pth")
    with caplog.at_level("INFO"):
        names = hv.load(tmp_path / "k400.pth", model=MICRO).class_names
    assert names is not None and (len(names), names[0], names[399]) == (400, "abseiling", "zumba")
    assert "its 400 classes have no names; assuming Kinetics-400" in caplog.text


def test_weights_that_do_not_fit(random_model: Callable[[], Hiera], tmp_path: Path) -> None:
    folder = hv.save_pretrained(random_model(), tmp_path / "model")
    with pytest.raises(ConfigError, match=r"hiera_base_224 takes \(height, width\)"):
        hv.load(folder, model="hiera_base_224")
    torch.save(hv.create_model("mae_hiera_micro_16x32").state_dict(), tmp_path / "mae.pth")
    words = r"mae.pth: has no classification head, so there are no classes to predict; fine-tune"
    with pytest.raises(ConfigError, match=words):
        hv.load(tmp_path / "mae.pth", model=MICRO)


def test_saved_folders_and_the_hub_need_no_model_name(
    random_model: Callable[[], Hiera], films: Path, tmp_path: Path
) -> None:
    """Issue I, weights 4: the name follows from `config.json`."""
    folder = hv.save_pretrained(random_model(), tmp_path / "model", class_names=NAMES)
    run = hv.load(folder)
    assert (run.config.model.name, run.class_names) == (MICRO, NAMES)
    named = hv.predict(hv.load(folder, model=MICRO), films / "a.mp4", topk=3)
    assert hv.predict(run, films / "a.mp4", topk=3) == named
    assert hv.predict(folder, films / "a.mp4", topk=3) == named
    with mock.patch("huggingface_hub.snapshot_download", return_value=str(folder)):
        assert hv.predict("hf-hub:someone/thing", films / "a.mp4", topk=3) == named


@pytest.mark.slow
def test_a_full_tag_needs_no_model_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    state = hv.create_model("hiera_base_16x224", num_classes=2).state_dict()

    def download(address: str, path: str) -> None:
        torch.save({"model_state": state}, path)

    with mock.patch.object(torch.hub, "download_url_to_file", side_effect=download):
        run = hv.load("hiera_base_16x224.mae_k400_ft_k400")
    assert run.config.model.name == "hiera_base_16x224"


def test_folders_that_hv_load_cannot_test(tmp_path: Path) -> None:
    image = hv.save_pretrained(hv.create_model("hiera_tiny_224", num_classes=3), tmp_path / "image")
    words = r"image: hiera_tiny_224 is an image model; hv\.load needs a video model"
    for name in (None, "hiera_tiny_224"):
        with pytest.raises(ConfigError, match=words):
            hv.load(image, model=name)
    config = replace(config_for(MICRO), mlp_ratio=2.0)
    other = hv.save_pretrained(Hiera(config), tmp_path / "other")
    words = (
        r"other: its config\.json is of no model in list_models\(\); hv\.from_pretrained rebuilds"
    )
    with pytest.raises(ConfigError, match=words):
        hv.load(other)
    headless = hv.save_pretrained(hv.create_model(MICRO, num_classes=0), tmp_path / "headless")
    with pytest.raises(ConfigError, match="has no classification head"):
        hv.load(headless)


def test_a_masked_autoencoder_is_saved_and_loaded(films: Path, tmp_path: Path) -> None:
    """It has no classes, but features."""
    config = Path(__file__).parents[2] / "configs/motion_hiera_micro_mae.yaml"
    (tmp_path / "run").mkdir()
    save_config(load_config(config, ["clip.frame_stride=3"]), tmp_path / "run/config.yaml")
    model = hv.create_model(f"mae_{MICRO}")
    meta = {"model": {"num_classes": None}, "class_names": None}
    store = CheckpointStore(tmp_path / "run/checkpoints", keep=1)
    store.save(1, model.state_dict(), {}, meta, best=True)
    run = hv.load(tmp_path / "run")
    saved = hv.load(run.save(tmp_path / "saved"))
    assert saved.config.model.name == f"mae_{MICRO}" and saved.config.clip.frame_stride == 3
    assert saved.model.mae == run.model.mae and saved.class_names is None
    for name, value in model.state_dict().items():
        assert torch.equal(saved.model.state_dict()[name], value)
    words = rf"fine-tune from it first \(model.pretrained={tmp_path}/saved\)"
    with pytest.raises(ConfigError, match=words):
        hv.predict(saved, films / "a.mp4")
    torch.save(model.state_dict(), tmp_path / "mae.pth")
    assert hv.load(tmp_path / "mae.pth", model=f"mae_{MICRO}").config.train.task == "pretrain"


@pytest.mark.parametrize(
    "meta",
    [
        *([], 3, "x", None, {}),
        *({"model": value, "class_names": None} for value in ([], 3, None, {"num_classes": "3"})),
        *({"model": {"num_classes": count}, "class_names": None} for count in (-1, True, 1.5, [3])),
        *(
            {"model": {"num_classes": 3}, "class_names": names}
            for names in (3, "abc", [1], {"a": 1})
        ),
    ],
)
def test_a_tampered_meta_json_is_one_line(run_folder: Path, tmp_path: Path, meta: Any) -> None:
    """Issue I, 4.2."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder, symlinks=True)
    (folder / "checkpoints/best/meta.json").write_text(json.dumps(meta))
    words = r"checkpoints/best: its meta.json is damaged \(.*\); load the run's last"
    with pytest.raises(CheckpointError, match=words):
        load(folder)


@pytest.mark.parametrize("size", [3, "x", [1], [[1]], None, [16, 0, 32], [10**12, 32, 32], 10**12])
def test_a_tampered_config_json_is_one_line(tmp_path: Path, size: Any) -> None:
    """Issue I, 4.2: `input_size` of any type, also where a program is exported."""
    save_pretrained(create_model("hiera_micro_16x32", num_classes=3), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "input_size": size}))
    with pytest.raises(HieraVideoError, match=r"input_size|config\.json"):
        load(tmp_path)
    with pytest.raises(HieraVideoError, match=r"input_size|config\.json"):
        export_source_from_weights("hiera_micro_16x32", str(tmp_path), "logits")
