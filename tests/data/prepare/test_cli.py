"""`--reencode` and `--shards` of every `prepare.py`, on trees laid out as the releases are."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.video import open_video
from hiera_video.video.encode import write_video

DATASETS = Path(__file__).parents[3] / "datasets"
Prepare = Callable[..., str]


@pytest.fixture
def prepare(capsys: pytest.CaptureFixture[str]) -> Prepare:
    """Return a function that runs a data set's script in this process and returns its output."""

    def run(dataset: str, *options: object) -> str:
        script = DATASETS / dataset / "prepare.py"
        spec = importlib.util.spec_from_file_location(f"prepare_{dataset}", script)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.main(["--workers", "0", *map(str, options)]) == 0
        return capsys.readouterr().out

    return run


def write(path: Path, frames: int = 10, codec: str = "libx264") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(frames).integers(0, 255, (frames, 32, 48, 3), np.uint8)
    write_video(path, pixels, fps=12, codec=codec)


def lengths(manifest: Manifest) -> list[int]:
    found = []
    for record in manifest.records:
        with open_video(record.source) as video:
            found.append(video.info.num_frames)
    return found


def test_kinetics(tmp_path: Path, prepare: Prepare) -> None:
    header = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_text(
        header + "zumba,aaaaaaaaaaa,10,20,train\nabseiling,bbbbbbbbbbb,0,10,train\n"
    )
    (tmp_path / "val.csv").write_text(header + "zumba,aaaaaaaaaaa,10,20,val\n")
    write(tmp_path / "k/train/aaaaaaaaaaa_000010_000020.mp4", 10)
    (tmp_path / "k/train/bbbbbbbbbbb_000000_000010.mp4").write_bytes(b"no video")
    write(tmp_path / "k/val/aaaaaaaaaaa_000010_000020.mp4", 13)

    def run(split: str) -> str:
        return prepare(
            "kinetics",
            *("--csv", tmp_path / f"{split}.csv", "--videos", tmp_path / "k" / split),
            *("--reencode", tmp_path / "k_256", "--shards", tmp_path / "tars"),
        )

    out = run("train")
    assert (
        "train.csv: 1 video re-encoded, 0 skipped (copied before), 1 unreadable "
        "(train.broken.jsonl)" in out
    )
    assert "train.index.json: 1 records in shards; use it as data.train=" in out
    run("val")
    for folder, suffix in (("k_256", "csv"), ("tars", "index.json")):
        train, val = (
            read_manifest(str(tmp_path / folder / f"{split}.{suffix}"))
            for split in ("train", "val")
        )
        assert train.class_names == val.class_names == ("abseiling", "zumba")
        assert ([record.label for record in train.records], lengths(train)) == ([1], [10])
        # the same file name in another split is another video
        assert ([record.label for record in val.records], lengths(val)) == ([1], [13])
    assert "train.csv: 0 videos re-encoded, 1 skipped (copied before), 1 unread" in run("train")


def test_ucf101_splits_share_copies(tmp_path: Path, prepare: Prepare) -> None:
    for name, frames in (("Archery/a_g01", 8), ("YoYo/b_g01", 9)):
        write(tmp_path / f"u/videos/{name}.avi", frames, codec="mpeg4")
    (tmp_path / "lists").mkdir()
    for split, train, test in (
        (1, "Archery/a_g01", "YoYo/b_g01"),
        (2, "YoYo/b_g01", "Archery/a_g01"),
    ):
        (tmp_path / f"lists/trainlist0{split}.txt").write_text(f"{train}.avi 1\n")
        (tmp_path / f"lists/testlist0{split}.txt").write_text(f"{test}.avi\n")
    options = (
        *("--videos", tmp_path / "u/videos", "--splits", tmp_path / "lists"),
        *("--reencode", tmp_path / "u_256", "--split"),
    )
    prepare("ucf101_hmdb51", *options, 1)
    out = prepare("ucf101_hmdb51", *options, 2)
    assert out.count("0 videos re-encoded, 1 skipped") == 2
    assert lengths(read_manifest(str(tmp_path / "u_256/train_2.csv"))) == [9]
    assert (tmp_path / "u_256/videos/YoYo/b_g01.avi.mp4").is_file()


def test_ssv2(tmp_path: Path, prepare: Prepare) -> None:
    (tmp_path / "s").mkdir()
    classes = {"Moving something up": "0", "Pushing something": "1"}
    (tmp_path / "s/labels.json").write_text(json.dumps(classes))
    entries = [{"id": "7", "template": "Pushing [something]"}]
    (tmp_path / "s/train.json").write_text(json.dumps(entries))
    write(tmp_path / "s/videos/7.webm", 11, codec="libvpx-vp9")
    prepare(
        "ssv2",
        *("--json", tmp_path / "s/train.json"),
        *("--reencode", tmp_path / "s_240", "--shards", tmp_path / "tars"),
    )
    for source in ("s_240/train.csv", "tars/train.index.json"):
        found = read_manifest(str(tmp_path / source))
        assert found.class_names == ("Moving something up", "Pushing something")
        assert ([record.label for record in found.records], lengths(found)) == ([1], [11])


@pytest.mark.slow
def test_launch_on_a_folder(tmp_path: Path) -> None:
    for name, frames in (("a/x.mp4", 8), ("b/x.mkv", 9), ("b/y.mp4", 10)):
        write(tmp_path / "v/train" / name, frames)
    (tmp_path / "v/train/b/z.mp4").write_bytes(b"")
    options = ("--videos", "v/train", "--reencode", "v_256", "--shards", "tars", "--workers", "2")
    command = [sys.executable, str(DATASETS / "folder/prepare.py"), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 videos re-encoded, 0 skipped (copied before), 1 unreadable" in done.stdout
    found = read_manifest(str(tmp_path / "tars/train.index.json"))
    assert found.class_names == ("a", "b") and lengths(found) == [8, 9, 10]
    assert [record.label for record in found.records] == [0, 1, 1]
    assert (tmp_path / "v_256/train/b/x.mkv.mp4").is_file()


@pytest.mark.parametrize(
    ("dataset", "option", "words"),
    [
        ("ssv2", "--json", r"nothing to do: train.json is read as it is; see --reencode, --shards"),
        ("folder", "--videos", r"nothing to do: name a folder with --reencode, --shards or both"),
    ],
)
def test_nothing_to_do(
    tmp_path: Path, prepare: Prepare, dataset: str, option: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare(dataset, option, tmp_path / "train.json")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--crf", 60, r"--crf 60: must be in 0"),
        ("--workers", -1, r"--workers -1: must be 0 or more"),
        ("--deadline", 0, r"--deadline 0.0: must be above 0 seconds"),
        ("--shard-mib", 0, r"--shard-mib 0: must be 1 or more"),
    ],
)
def test_bad_values(tmp_path: Path, prepare: Prepare, option: str, value: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare("folder", "--videos", tmp_path, "--reencode", tmp_path / "out", option, value)


def test_a_folder_without_videos(tmp_path: Path, prepare: Prepare) -> None:
    with pytest.raises(ManifestError, match=r"contains no videos; put them into"):
        prepare("folder", "--videos", tmp_path, "--shards", tmp_path / "out")
