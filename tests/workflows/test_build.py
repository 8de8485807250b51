"""Classes of the training and validation manifests, and the model that a run starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.workflows.build import (
    align_val,
    check_validation_files,
    has_validation,
    make_initial_model,
    read_split,
    resolve_num_classes,
)

MOTION = Path(__file__).parents[2] / "configs/motion_hiera_micro.yaml"


def manifest(source: str, names: tuple[str, ...] | None, *labels: Label) -> Manifest:
    records = tuple(
        Record(path=f"{row}.mp4", label=label, row=row) for row, label in enumerate(labels)
    )
    return Manifest(records=records, class_names=names, multi_label=False, source=source)


def config(*overrides: str) -> Config:
    return load_config("configs/motion_hiera_micro.yaml", overrides)


TRAIN = manifest("train.csv", ("jump", "run", "swim"), 0, 1, 2)


@pytest.mark.parametrize("names", [None, ("jump", "run", "swim"), ("jump", "run")])
def test_equal_or_missing_class_names_need_no_mapping(names: tuple[str, ...] | None) -> None:
    val = manifest("val.csv", names, 0, 1)
    assert align_val(config(), TRAIN, val) is val
    assert align_val(config(), manifest("train.csv", None, 0), val) is val


def test_pretraining_ignores_labels() -> None:
    val = manifest("val.csv", ("run", "dive"), 0, 1)
    assert align_val(load_config("configs/motion_hiera_micro_mae.yaml"), TRAIN, val) is val


def test_class_names_in_another_order_are_an_error_or_are_mapped() -> None:
    val = manifest("val.csv", ("run", "jump", "swim"), 0, 1)
    words = (
        r"val.csv: class 0 is 'run', but 'jump' in train.csv: the names have another order; set "
        "test.remap_classes=true to map the labels by name"
    )
    with pytest.raises(ManifestError, match=words):
        align_val(config(), TRAIN, val)
    mapped = align_val(config("test.remap_classes=true"), TRAIN, val)
    assert [record.label for record in mapped.records] == [1, 0]
    assert mapped.class_names == TRAIN.class_names
    val = manifest("val", ("run", "swim"), 0, 1)  # as a folder without videos of a class
    words = (
        "val: class 0 is 'run', but 'jump' in train.csv: it lacks 'jump'; set test.remap_classes"
    )
    with pytest.raises(ManifestError, match=words):
        align_val(config(), TRAIN, val)


def test_class_names_unknown_to_the_training_set_are_an_error() -> None:
    val = manifest("val.csv", ("jump", "dive"), 0, 1)
    words = "val.csv: names classes that train.csv does not: 'dive'; validate on the classes of the"
    with pytest.raises(ManifestError, match=words):
        align_val(config("test.remap_classes=true"), TRAIN, val)


def test_the_training_set_decides_whether_labels_are_multi_label() -> None:
    several = manifest("train.csv", None, 0, 1).to_multi_label()
    val = align_val(config(), several, manifest("val.csv", None, 1, 0))
    assert val.multi_label and [record.label for record in val.records] == [(1,), (0,)]
    with pytest.raises(ManifestError, match=r"train.csv: has several labels .* val.csv one; "):
        align_val(config(), manifest("val.csv", None, 0), several)


def test_number_of_classes(caplog: pytest.LogCaptureFixture) -> None:
    unset = config("model.num_classes=null")
    three, four = config("model.num_classes=3"), config("model.num_classes=4")
    unnamed = manifest("train.csv", None, 0, 1)
    assert resolve_num_classes(unset, TRAIN) == resolve_num_classes(three, TRAIN) == 3
    assert resolve_num_classes(four, unnamed) == 4
    words = r"train.csv: names 3 classes, but model.num_classes=4; set model.num_classes=null to"
    with pytest.raises(ManifestError, match=words):
        resolve_num_classes(four, TRAIN)
    words = (
        r"train.csv: has labels up to 4, the model has 3 classes; set model.num_classes=5 or "
        "correct the labels"
    )
    with pytest.raises(ManifestError, match=words):
        resolve_num_classes(three, manifest("train.csv", None, 0, 4))
    from_one = manifest("train.csv", None, 1, 2, 3)
    words = (
        r"up to 3, the model has 3 classes; its labels start at 1, but classes count from 0: "
        "subtract 1 from each"
    )
    with pytest.raises(ManifestError, match=words):
        resolve_num_classes(three, from_one)
    assert not caplog.messages
    assert resolve_num_classes(unset, from_one) == 4
    assert "train.csv: no video has label 0, and classes count from 0; if its" in caplog.text


def test_one_class_is_refused_before_any_work() -> None:
    """I 3.3"""
    unset = config("model.num_classes=null")
    words = r"train.csv: has one class, and a classifier needs two or more; masked pre-training"
    with pytest.raises(ManifestError, match=words):
        resolve_num_classes(unset, manifest("train.csv", None, 0, 0))
    several = manifest("train.csv", None, (0,), ()).to_multi_label()
    assert resolve_num_classes(unset, several) == 1


def test_gaps_between_labels_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """I 3.3: {7, 42} made 43 classes without a word."""
    unset, train = config("model.num_classes=null"), manifest("train.csv", None, 7, 42)
    assert resolve_num_classes(unset, train) == 43
    assert caplog.messages == [
        "warning: train.csv: labels up to 42 make 43 classes, but videos have only 2 of them; "
        "number the classes from 0 without gaps, or set model.num_classes=43 if this is on purpose"
    ]
    caplog.clear()
    assert resolve_num_classes(config("model.num_classes=43"), train) == 43
    assert caplog.messages == []


def test_a_label_of_nine_digits_is_refused() -> None:
    """I 4.2: its head would take terabytes."""
    words = "train.csv: has labels up to 999999999, which is a slip: a model of so many classes"
    with pytest.raises(ManifestError, match=words):
        resolve_num_classes(
            config("model.num_classes=null"), manifest("train.csv", None, 0, 999_999_999)
        )


def test_a_head_for_other_class_names_is_newly_initialised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trained = create_model("hiera_micro_16x32", num_classes=3)
    source = str(save_pretrained(trained, tmp_path, class_names=["jump", "run", "swim"]))
    weights, head = trained.state_dict(), "head.projection.weight"
    for names in (("jump", "run", "swim"), None):
        model = make_initial_model(config(), 3, pretrained=source, class_names=names)
        assert torch.equal(model.state_dict()[head], weights[head])
    assert "head newly initialised" not in caplog.text
    model = make_initial_model(config(), 3, pretrained=source, class_names=("cook", "eat", "wash"))
    assert not torch.equal(model.state_dict()[head], weights[head])
    assert torch.equal(model.state_dict()["pos_embed_spatial"], weights["pos_embed_spatial"])
    words = (
        "head newly initialised: its classes are 'jump', 'run', 'swim', those of the training are "
        "'cook', 'eat', 'wash'"
    )
    assert words in caplog.text


@pytest.mark.parametrize(
    ("split", "remedy"),
    [
        ("train", "set data.train to a list or folder of your own, or make it: "),
        (
            "val",
            "set data.val to a list or folder of your own, or to null to train without validation, "
            "or make it: ",
        ),
    ],
)
def test_a_missing_list_names_the_likely_cause(split: str, remedy: str) -> None:
    """Issue I, section 5: the recipe's own list, where one's own was meant to be set."""
    recipe = load_config("k400_hiera_b", ["data.root=null"])
    with pytest.raises(ManifestError) as error:
        read_split(recipe, split)
    assert str(error.value) == (
        f"data.{split}=data/kinetics400/{split}.csv: no such file or folder; {remedy}"
        "`hiera-video prepare kinetics --help`"
    )


def test_a_share_of_the_training_list_is_held_out(tmp_path: Path) -> None:
    names = [f"film{film}_{start}_{start + 5}.mp4" for film in range(10) for start in (0, 5)]
    listing = tmp_path / "all.csv"
    listing.write_text("".join(f"{name} {row % 2}\n" for row, name in enumerate(names)))
    config = load_config(MOTION, [f"data.train={listing}", "data.val=null", "data.split=[0.2,0.1]"])
    parts = {split: read_split(config, split) for split in ("train", "val", "test")}
    assert {split: len(part.records) for split, part in parts.items()} == {
        "train": 14,
        "val": 4,
        "test": 2,
    }
    films = [
        {Path(record.path).name.split("_")[0] for record in part.records} for part in parts.values()
    ]
    assert sum(map(len, films)) == 10 == len(set.union(*films))
    assert parts["val"].source == f"{listing} (val)" and has_validation(config)
    alone = load_config(MOTION, [f"data.train={listing}", "data.val=null", "data.split=[0.2,0]"])
    assert len(read_split(alone, "test").records) == 4  # the validation part, as without a split
    (tmp_path / "val.csv").write_text("film0_0_5.mp4 0\n")
    keys = [f"data.train={listing}", f"data.val={tmp_path / 'val.csv'}", "data.split=[0,0.2]"]
    tested = load_config(MOTION, keys)
    assert len(read_split(tested, "val").records) == 1
    assert len(read_split(tested, "test").records) == 4  # held out, not the validation list
    whole = load_config(MOTION, [f"data.train={listing}", "data.val=null"])
    assert len(read_split(whole, "train").records) == 20 and not has_validation(whole)


def test_each_split_may_have_a_folder_of_its_own(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_text("class/a.mp4 0\n")
        (tmp_path / f"videos_{split}").mkdir()
    keys = [f"data.{split}={tmp_path / split}.txt" for split in ("train", "val")]
    roots = [f"data.root={tmp_path}/videos_train", f"data.val_root={tmp_path}/videos_val"]

    def folders(*more: str) -> list[str]:
        config = load_config(MOTION, [*keys, *roots, *more])
        found = (read_split(config, split).records[0].path for split in ("train", "val", "test"))
        return [str(Path(path).relative_to(tmp_path).parts[0]) for path in found]

    assert folders() == ["videos_train", "videos_val", "videos_val"]  # tests on data.val
    test = f"data.test={tmp_path / 'test.txt'}"
    assert folders(test) == ["videos_train", "videos_val", "videos_train"]
    assert folders(test, f"data.test_root={tmp_path}/videos_test")[2] == "videos_test"
    with pytest.raises(ConfigError, match=r"data.val_root=nowhere: no such folder; set it to that"):
        folders("data.val_root=nowhere")


def test_validation_videos_that_do_not_exist_are_found_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = manifest("val.csv", None, *range(200))
    for row in (0, 100):
        (tmp_path / f"{row}.mp4").touch()
    records = tuple(replace(one, path=str(tmp_path / one.path)) for one in found.records)
    found = replace(found, records=records)
    check_validation_files(config(), replace(found, records=records[:1]))
    assert caplog.text == ""
    check_validation_files(config(), found)
    assert (
        "val.csv: 48 of 50 videos that were looked at do not exist, such as "
        f"{tmp_path}/4.mp4; a validation leaves such videos out" in caplog.text
    )
    words = "of 50 videos that were looked at do not exist, such as .*; set {} to their folder$"
    missing = replace(found, records=records[101:151])
    for keys, named in (([], "data.root or data.val_root"), (["data.val_root=a"], "data.val_root")):
        with pytest.raises(ConfigError, match=words.format(named)):
            check_validation_files(config(*keys), missing)
    check_validation_files(config(), replace(found, records=()))


def test_a_split_that_is_not_possible(tmp_path: Path) -> None:
    listing = tmp_path / "all.csv"
    listing.write_text("a.mp4 0\nb.mp4 1\n")
    config = load_config(MOTION, [f"data.train={listing}", "data.val=null", "data.split=[0.2,0.1]"])
    words = r"data.split=\[0.2, 0.1\]: .*all.csv has too few videos for a val part; add videos or"
    with pytest.raises(ManifestError, match=words):
        read_split(config, "val")


def test_several_training_lists_match_their_classes_by_name(tmp_path: Path) -> None:
    for folder, names, lines in (
        ("a", "up down", "1.mp4 0\n2.mp4 1\n"),
        ("b", "round up", "1.mp4 0\n3.mp4 1\n"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "list.csv").write_text(lines)
        (tmp_path / folder / "labels.txt").write_text("\n".join(names.split()))
    a, b = (tmp_path / folder / "list.csv" for folder in "ab")
    keys = [f"data.train={a}", f"data.train_also=[{b}]", "data.train_repeats=[1,2]"]
    merged = read_split(load_config(MOTION, keys), "train")
    assert merged.class_names == ("up", "down", "round") and merged.source == f"{a} + {b}"
    found = [(str(Path(r.path).relative_to(tmp_path)), r.label) for r in merged.records]
    twice = [("b/1.mp4", 2), ("b/3.mp4", 0)] * 2
    assert found == [("a/1.mp4", 0), ("a/2.mp4", 1), *twice]
    assert [record.row for record in merged.records] == list(range(6))
    (tmp_path / "b" / "labels.txt").unlink()
    words = r"b/list\.csv: has no class names, and .*a/list\.csv has; write a labels\.txt beside"
    with pytest.raises(ManifestError, match=words):
        read_split(load_config(MOTION, keys), "train")
    (tmp_path / "a" / "labels.txt").unlink()
    unnamed = read_split(load_config(MOTION, keys), "train")
    assert [record.label for record in unnamed.records] == [0, 1, 0, 1, 0, 1]
    missing = load_config(MOTION, [f"data.train={a}", "data.train_also=[nope.csv]"])
    with pytest.raises(ManifestError, match=r"data\.train_also=nope\.csv: no such file or folder"):
        read_split(missing, "train")


def test_key_frames_are_of_one_list(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("")
    keys = ["train.task=detect", "model.num_classes=3", f"data.train={tmp_path / 'list.csv'}"]
    config = load_config(MOTION, [*keys, "data.train_repeats=[2]"])
    with pytest.raises(ConfigError, match=r"data\.train_repeats: do not go with train.task=detect"):
        read_split(config, "train")
