"""Kinetics: lists from a release's csv files and clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.errors import ManifestError

HEADER = "label,youtube_id,time_start,time_end,split\n"
Prepare = Callable[[str], None]


@pytest.fixture
def prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_script: Callable[[str], ModuleType]
) -> Prepare:
    """Return a function that makes the list of a split in the current folder."""
    monkeypatch.chdir(tmp_path)

    def run(split: str) -> None:
        arguments = ["--csv", f"csv/{split}.csv", "--videos", f"k/{split}"]
        assert load_script("kinetics").main(arguments) == 0

    return run


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Three training clips, one of them missing, and one validation clip."""
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv/train.csv").write_text(
        HEADER
        + "zumba,-aaaaaaaaaa,10,20,train\n"
        + '"abseiling",bbbbbbbbbbb,0,10,train\n'
        + "zumba,missing____,5,15,train\n"
    )
    (tmp_path / "csv/val.csv").write_text(HEADER + "zumba,ccccccccccc,3,13,val\n")
    for name in (
        "train/-aaaaaaaaaa_000010_000020.mp4",
        "train/bbbbbbbbbbb_000000_000010.mp4",
        "val/zumba/ccccccccccc_000003_000013.mp4",
    ):
        (tmp_path / "k" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "k" / name).touch()
    return tmp_path


def test_splits_share_alphabetical_classes_and_missing_clips_are_counted(
    release: Path, prepare: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare("train")
    assert "2 of 3 listed videos are present, 2 classes" in capsys.readouterr().out
    prepare("val")
    train, val = (read_manifest(str(release / f"k/{split}.csv")) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("abseiling", "zumba")
    assert [record.label for record in train.records] == [1, 0]
    assert [record.label for record in val.records] == [1]


def test_the_folder_of_both_splits_may_be_a_link(release: Path, prepare: Prepare) -> None:
    (release / "k").rename(release / "disk")
    (release / "k").symlink_to("disk")
    prepare("train")
    assert len(read_manifest(str(release / "k/train.csv")).records) == 2


def test_the_folder_of_one_split_may_not_be_a_link(release: Path, prepare: Prepare) -> None:
    (release / "k").rename(release / "disk")
    (release / "k").mkdir()
    (release / "k/train").symlink_to("../disk/train")
    prepare("train")
    with pytest.raises(ManifestError, match="lies behind a link that leaves"):
        read_manifest(str(release / "k/train.csv"))


def test_a_missing_csv(prepare: Prepare) -> None:
    with pytest.raises(
        ManifestError, match=r"csv/train.csv: does not exist; hiera-video prepare kinetics --help"
    ):
        prepare("train")


def test_the_releases_csv_is_not_overwritten(
    release: Path, load_script: Callable[[str], ModuleType]
) -> None:
    original = (release / "csv/train.csv").rename(release / "k/train.csv")
    with pytest.raises(ManifestError, match=r"k/train.csv: is the output file; move the release's"):
        load_script("kinetics").main(["--csv", str(original), "--videos", str(release / "k/train")])
    assert original.read_text().startswith(HEADER)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n", "csv/train.csv: has no column label, youtube_id, time_start, time_end; the"),
        (HEADER + "zumba,elsewhere__,1,2,train\n", "k/train: contains none of the 1 clip that"),
        (
            HEADER + "zumba,-aaaaaaaaaa,10,20,train\nzumba,bbbbbbbbbbb,1.5,3\n",
            "csv/train.csv:3: time_start 1.5 and time_end 3 must be whole seconds; correct or",
        ),
        (HEADER + "zumba,bbbbbbbbbbb,7\n", "csv/train.csv:2: time_start 7 and time_end None must"),
    ],
)
def test_bad_csv_files(release: Path, prepare: Prepare, content: str, words: str) -> None:
    (release / "csv/train.csv").write_text(content)
    with pytest.raises(ManifestError, match=words):
        prepare("train")
    assert not (release / "k/labels.txt").exists()  # the next csv decides the classes


def test_a_class_that_the_first_split_lacks(release: Path, prepare: Prepare) -> None:
    prepare("train")
    (release / "csv/val.csv").write_text(HEADER + "juggling,ccccccccccc,3,13,val\n")
    with pytest.raises(
        ManifestError, match=r"class 'juggling' is not in k/labels.txt; remove that file"
    ):
        prepare("val")
