"""The classes of the training's and the validation's lists, held against each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.errors import ManifestError
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.workflows.build import aligned_val, make_first_model, num_classes_of


def manifest(source: str, names: tuple[str, ...] | None, *labels: Label) -> Manifest:
    records = tuple(
        Record(path=f"{row}.mp4", label=label, row=row) for row, label in enumerate(labels)
    )
    return Manifest(records=records, class_names=names, multi_label=False, source=source)


def config(*overrides: str) -> Config:
    return load_config("configs/motion_hiera_micro.yaml", overrides)


TRAIN = manifest("train.csv", ("jump", "run", "swim"), 0, 1, 2)


@pytest.mark.parametrize("names", [None, ("jump", "run", "swim"), ("jump", "run")])
def test_the_same_order_or_no_names_stay(names: tuple[str, ...] | None) -> None:
    val = manifest("val.csv", names, 0, 1)
    assert aligned_val(config(), TRAIN, val) is val
    assert aligned_val(config(), manifest("train.csv", None, 0), val) is val


def test_pretraining_looks_at_no_labels() -> None:
    val = manifest("val.csv", ("run", "dive"), 0, 1)
    assert aligned_val(load_config("configs/motion_hiera_micro_mae.yaml"), TRAIN, val) is val


def test_another_order_is_an_error_that_offers_the_remedy() -> None:
    val = manifest("val.csv", ("run", "jump", "swim"), 0, 1)
    words = r"val.csv: class 0 is 'run', but 'jump' in train.csv: .* bring them into one order, or set test.remap_classes=true"
    with pytest.raises(ManifestError, match=words):
        aligned_val(config(), TRAIN, val)
    mapped = aligned_val(config("test.remap_classes=true"), TRAIN, val)
    assert [record.label for record in mapped.records] == [
        1,
        0,
    ] and mapped.class_names == TRAIN.class_names


def test_names_that_the_training_does_not_know_are_named() -> None:
    words = "val.csv: names classes that train.csv does not: 'dive'; validate on the classes of the training"
    with pytest.raises(ManifestError, match=words):
        aligned_val(
            config("test.remap_classes=true"), TRAIN, manifest("val.csv", ("jump", "dive"), 0, 1)
        )


def test_one_label_or_several_is_the_trainings_affair() -> None:
    """A validation list whose videos happen to have one label each is of several all the same."""
    several = manifest("train.csv", None, 0, 1).to_multi_label()
    val = aligned_val(config(), several, manifest("val.csv", None, 1, 0))
    assert val.multi_label and [record.label for record in val.records] == [(1,), (0,)]
    words = "train.csv: has several labels a video, val.csv one; give each video one label, or train on a list with several"
    with pytest.raises(ManifestError, match=words):
        aligned_val(config(), manifest("val.csv", None, 0), several)


def test_the_list_says_how_many_classes_there_are(caplog: pytest.LogCaptureFixture) -> None:
    whatever = config("model.num_classes=null")
    assert (
        num_classes_of(whatever, TRAIN) == num_classes_of(config("model.num_classes=3"), TRAIN) == 3
    )
    assert num_classes_of(config("model.num_classes=5"), manifest("train.csv", None, 0, 1)) == 5
    words = r"train.csv: names 3 classes, but model.num_classes=400; set model.num_classes=null to take as many as it names"
    with pytest.raises(ManifestError, match=words):
        num_classes_of(config("model.num_classes=400"), TRAIN)
    words = r"train.csv: has labels up to 4, the model has 3 classes; set model.num_classes=5 or correct the labels"
    with pytest.raises(ManifestError, match=words):
        num_classes_of(config("model.num_classes=3"), manifest("train.csv", None, 0, 4))
    words = r"up to 3, the model has 3 classes; its labels begin at 1: classes count from 0, so take 1 from each"
    with pytest.raises(ManifestError, match=words):
        num_classes_of(config("model.num_classes=3"), manifest("train.csv", None, 1, 2, 3))
    assert not caplog.messages
    assert num_classes_of(whatever, manifest("train.csv", None, 1, 2, 3)) == 4
    assert (
        "train.csv: no video has label 0, and classes count from 0; if its labels begin at 1"
        in caplog.text
    )


def test_as_many_classes_of_other_names_get_a_fresh_head(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trained = create_model("hiera_micro_16x32", num_classes=3)
    source = str(save_pretrained(trained, tmp_path, class_names=["jump", "run", "swim"]))
    head = trained.state_dict()["head.projection.weight"]
    for names in (("jump", "run", "swim"), None):
        model = make_first_model(config(), 3, pretrained=source, class_names=names)
        assert torch.equal(model.state_dict()["head.projection.weight"], head)
    assert "head is fresh" not in caplog.text
    model = make_first_model(config(), 3, pretrained=source, class_names=("cook", "eat", "wash"))
    assert not torch.equal(model.state_dict()["head.projection.weight"], head)
    assert torch.equal(
        model.state_dict()["pos_embed_spatial"], trained.state_dict()["pos_embed_spatial"]
    )
    words = (
        "head is fresh: its classes are 'jump', 'run', 'swim', the list's are 'cook', 'eat', 'wash'"
    )
    assert words in caplog.text
