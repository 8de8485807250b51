"""The classes of the training's and the validation's lists, held against each other."""

from __future__ import annotations

import pytest

from hiera_video.config import Config, load_config
from hiera_video.config.build import aligned_val
from hiera_video.data.manifest import Manifest
from hiera_video.data.records import Label, Record
from hiera_video.errors import ManifestError


def manifest(source: str, names: tuple[str, ...] | None, *labels: Label) -> Manifest:
    records = tuple(Record(path=f"{row}.mp4", label=label, row=row) for row, label in enumerate(labels))
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
    assert [record.label for record in mapped.records] == [1, 0] and mapped.class_names == TRAIN.class_names


def test_names_that_the_training_does_not_know_are_named() -> None:
    words = "val.csv: names classes that train.csv does not: 'dive'; validate on the classes of the training"
    with pytest.raises(ManifestError, match=words):
        aligned_val(config("test.remap_classes=true"), TRAIN, manifest("val.csv", ("jump", "dive"), 0, 1))
