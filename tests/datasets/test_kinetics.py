"""The Kinetics recipe on a tree laid out as the release is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.errors import ManifestError

PREPARE = Path(__file__).parents[2] / "datasets" / "kinetics" / "prepare.py"
HEADER = "label,youtube_id,time_start,time_end,split\n"


def prepare(folder: Path, split: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PREPARE), "--csv", f"csv/{split}.csv", "--videos", f"k/{split}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def release(folder: Path) -> None:
    (folder / "csv").mkdir(exist_ok=True)
    (folder / "csv/train.csv").write_text(
        HEADER
        + 'zumba,-aaaaaaaaaa,10,20,train\n"abseiling",bbbbbbbbbbb,0,10,train\nzumba,missing____,5,15,train\n'
    )
    (folder / "csv/val.csv").write_text(HEADER + "zumba,ccccccccccc,3,13,val\n")
    for name in (
        "train/-aaaaaaaaaa_000010_000020.mp4",
        "train/bbbbbbbbbbb_000000_000010.mp4",
        "val/zumba/ccccccccccc_000003_000013.mp4",
    ):
        (folder / "k" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "k" / name).write_bytes(b"")


def test_splits_share_alphabetical_classes_and_missing_clips_are_counted(tmp_path: Path) -> None:
    release(tmp_path)
    train, val = prepare(tmp_path, "train"), prepare(tmp_path, "val")
    assert (train.returncode, val.returncode) == (0, 0), train.stderr + val.stderr
    assert "2 of 3 listed clips are there, 2 classes" in train.stdout
    found = read_manifest(str(tmp_path / "k" / "train.csv"))
    assert found.class_names == ("abseiling", "zumba") and [
        record.label for record in found.records
    ] == [1, 0]
    assert read_manifest(str(tmp_path / "k" / "val.csv")).records[0].label == 1


def test_the_folder_of_both_splits_may_be_a_link_and_one_splits_may_not(tmp_path: Path) -> None:
    release(tmp_path)
    (tmp_path / "k").rename(tmp_path / "disk")
    (tmp_path / "k").symlink_to("disk")
    assert prepare(tmp_path, "train").returncode == 0
    assert len(read_manifest(str(tmp_path / "k" / "train.csv")).records) == 2
    (tmp_path / "k").unlink()
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "train").symlink_to("../disk/train")
    assert prepare(tmp_path, "train").returncode == 0
    with pytest.raises(ManifestError, match="lies behind a link that leaves"):
        read_manifest(str(tmp_path / "k" / "train.csv"))


def test_refusals_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    missing = prepare(tmp_path, "train")
    assert (
        missing.returncode == 2
        and "csv/train.csv: does not exist; see datasets/kinetics/README.md" in missing.stderr
    )
    release(tmp_path)
    (tmp_path / "csv/train.csv").write_text("a,b\n1,2\n")
    header = prepare(tmp_path, "train")
    assert (
        header.returncode == 2
        and "has no column label, youtube_id, time_start, time_end" in header.stderr
    )
    (tmp_path / "csv/train.csv").write_text(HEADER + "zumba,elsewhere__,1,2,train\n")
    empty = prepare(tmp_path, "train")
    assert empty.returncode == 2 and "holds none of the 1 clips" in empty.stderr
    assert not (
        tmp_path / "k/labels.txt"
    ).exists()  # the next csv decides the classes, not this one
    prepare(tmp_path, "val")
    (tmp_path / "csv/val.csv").write_text(HEADER + "juggling,ccccccccccc,3,13,val\n")
    unknown = prepare(tmp_path, "val")
    assert (
        unknown.returncode == 2
        and "class 'juggling' is not in k/labels.txt; remove that file" in unknown.stderr
    )


@pytest.mark.parametrize(
    ("line", "told"), [("1.5,3", "time_start 1.5 and time_end 3"), ("7", "time_end None")]
)
def test_a_line_without_whole_seconds_is_told_by_its_number(
    tmp_path: Path, line: str, told: str
) -> None:
    release(tmp_path)
    (tmp_path / "csv/train.csv").write_text(
        HEADER + f"zumba,-aaaaaaaaaa,10,20,train\nzumba,bbbbbbbbbbb,{line}\n"
    )
    done = prepare(tmp_path, "train")
    assert done.returncode == 2 and "csv/train.csv:3: " in done.stderr and told in done.stderr
    assert "must be whole seconds; mend the line, or take it out" in done.stderr
    assert not (tmp_path / "k/labels.txt").exists()
