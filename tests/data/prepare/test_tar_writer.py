"""Tar shards: equal batches to those of the files, on disk and at a URL; resuming; refusals."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.data.dataset import TestViews, TrainClips
from hiera_video.data.loading.batch_plan import BatchPlan
from hiera_video.data.loading.loader import test_loader, train_loader
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.tar_writer import TarShard, write_shards
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.clip_sample import ClipSample
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError, ManifestError

CLIP = ClipConfig(num_frames=2, frame_stride=2)
TWO_CROPS = EvalTransform(32, 2, (0.45,) * 3, (0.225,) * 3)


def small(frames: Any, generator: random.Random) -> ClipSample:
    clip = torch.from_numpy(np.ascontiguousarray(frames[:, ::4, ::4])).permute(3, 0, 1, 2).float()
    return ClipSample(pixels=clip + generator.random())


def batches(manifest: Manifest, workers: int, first: int = 0) -> list[str]:
    dataset = TrainClips(manifest, CLIP, small, seed=3)
    plan = BatchPlan(num_records=len(manifest.records), batch_size=4, seed=3)
    steps = train_loader(dataset, plan, first_step=first, last_step=5, workers=workers)
    return [
        hashlib.sha256(
            b"".join(t.numpy().tobytes() for b in step for t in (b.clips, b.labels, b.row))
        ).hexdigest()
        for step in steps
    ]


def views(manifest: Manifest, workers: int) -> list[Any]:
    dataset = TestViews(manifest, CLIP, TWO_CROPS, num_clips=2)
    found: Iterable[Any] = test_loader(dataset, workers=workers, rows=range(len(manifest.records)))
    return [(view.row, view.clip_seconds, view.views.numpy().tobytes()) for view in found]


def test_the_index_gives_the_same_records(seven_videos: Manifest, shards_index: Path) -> None:
    found = read_manifest(str(shards_index))
    assert (found.class_names, found.multi_label) == (("up", "down", "round"), False)
    facts = [(r.label, r.row, r.start_seconds, r.end_seconds) for r in found.records]
    assert facts == [(r.label, r.row, r.start_seconds, r.end_seconds) for r in seven_videos.records]
    assert found.records[0].path == f"{shards_index.parent}/train-000000.tar!0000000_v_0_x.mp4"
    assert found.records[6].shard_video == found.records[7].shard_video  # stored once
    sizes = [path.stat().st_size for path in sorted(shards_index.parent.glob("*.tar"))]
    assert len(sizes) > 2 and max(sizes) <= 60_000


def test_batches_and_views_equal_those_of_the_files(
    seven_videos: Manifest, shards_index: Path
) -> None:
    stored = read_manifest(str(shards_index))
    expected = batches(seven_videos, 0)
    assert batches(stored, 0) == batches(stored, 2) == expected
    assert batches(stored, 2, first=3) == expected[3:]
    assert views(stored, 0) == views(stored, 2) == views(seven_videos, 0)


def test_shards_at_a_url(
    seven_videos: Manifest, shards_index: Path, served_shards: str, tmp_path: Path
) -> None:
    remote = read_manifest(f"{served_shards}/{shards_index.name}")
    assert remote.records[0].path == "memory://served/train-000000.tar!0000000_v_0_x.mp4"
    (tmp_path / shards_index.name).write_bytes(shards_index.read_bytes())
    rooted = read_manifest(str(tmp_path / shards_index.name), root=f"{served_shards}/")
    assert rooted.records == remote.records
    assert batches(remote, 0) == batches(remote, 2) == batches(seven_videos, 0)
    by_url = read_manifest(f"file://{shards_index}")
    assert by_url.records[0].path.startswith("file:///") and views(by_url, 2) == views(
        seven_videos, 0
    )


def test_shards_follow_webdatasets_layout(seven_videos: Manifest, shards_index: Path) -> None:
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(shards_index.parent.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                # webdataset's rule: a key ends at its first dot
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert member.isreg() and file is not None
                assert suffix not in samples.setdefault(key, {})
                samples[key][suffix] = file.read()
    assert [sorted(sample) for sample in samples.values()] == [["cls", "json", "mp4"]] * 6 + [
        ["json", "mkv"]
    ]
    first, last = list(samples.values())[1], list(samples.values())[-1]
    assert first["mp4"] == Path(seven_videos.records[1].path).read_bytes() and first["cls"] == b"1"
    assert json.loads(first["json"]) == {"file": "v 0.x.mp4", "row": 1, "label": 1, "class": "down"}
    assert [entry["end_seconds"] for entry in json.loads(last["json"])["records"]] == [0.3, 0.6]


def test_an_interrupted_run_resumes_and_gives_the_same_bytes(
    seven_videos: Manifest, shards_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = TarShard.write

    def die_in_the_third(shard: TarShard, out: Any) -> None:
        written.append(shard.name)
        if len(written) == 3:
            out.write(b"half")
            raise KeyboardInterrupt
        write(shard, out)

    monkeypatch.setattr(TarShard, "write", die_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_shards(seven_videos, tmp_path, "train", shard_bytes=60_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(".train.unfinished.json", "train-000000.tar", "train-000001.tar")
    ]
    write_shards(seven_videos, tmp_path, "train", shard_bytes=60_000)
    third, remaining = written[2], written[3:]
    assert remaining[0] == third and not set(remaining) & set(written[:2])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in shards_index.parent.iterdir()
    }
    written.clear()
    write_shards(seven_videos, tmp_path, "train", shard_bytes=60_000)
    assert written == []  # all complete


def test_the_index_is_a_function_of_the_shards(videos: Any, tmp_path: Path) -> None:
    """I 4.5: it had the paths and dates of the videos in it."""
    indexes = []
    for name in ("one", "two"):
        folder = tmp_path / name
        videos.write(f"{name}/a/x.mp4", 6)
        os.utime(folder / "a/x.mp4", (1, len(indexes)))
        (folder / "train.csv").write_text("a/x.mp4 0\n")
        index = write_shards(
            read_manifest(str(folder / "train.csv")), tmp_path / f"{name}_out", "t"
        )
        indexes.append(index.read_bytes())
    assert indexes[0] == indexes[1]
    with pytest.raises(ConfigError, match="has shards 't' of other videos"):
        write_shards(read_manifest(str(folder / "train.csv")), tmp_path / "one_out", "t")


def test_shards_of_an_earlier_version_are_known_by_their_index(tmp_path: Path) -> None:
    """I 4.5: their index says what they are made of."""
    (tmp_path / "a.mp4").write_bytes(b"1234")
    index = write_shards(one_video(tmp_path / "a.mp4"), tmp_path / "out", "t")
    sources = index.with_name(".t.sources.json")
    index.write_text(json.dumps(json.loads(index.read_text()) | json.loads(sources.read_text())))
    sources.unlink()
    write_shards(one_video(tmp_path / "a.mp4"), tmp_path / "out", "t")
    assert sources.is_file()


def one_video(path: Path) -> Manifest:
    record = Record(path=str(path), label=0, row=0)
    return Manifest(records=(record,), class_names=None, multi_label=False, source="x")


def test_a_folder_with_other_shards(
    seven_videos: Manifest, shards_index: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"has shards 'train' of other videos or of another shard size; remove"
    ):
        write_shards(seven_videos, shards_index.parent, "train", shard_bytes=50_000)
    (tmp_path / "x-000000.tar").touch()
    with pytest.raises(
        ConfigError, match=r"x-000000.tar: exists without an index; remove it or choose"
    ):
        write_shards(seven_videos, tmp_path, "x")


def test_two_commands_do_not_write_the_same_shards(seven_videos: Manifest, tmp_path: Path) -> None:
    words = "another command is writing the shards 'train' there; wait for its end or choose"

    def write_again(shards: Iterable[TarShard]) -> Iterable[TarShard]:
        with pytest.raises(ConfigError, match=words):
            write_shards(seven_videos, tmp_path, "train")
        return shards

    write_shards(seven_videos, tmp_path, "train", progress=write_again)
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".train.sources.json"]


def test_records_that_are_not_video_files(shards_index: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError,
        match=r"gone.mp4: cannot be put into a shard .No such file .*hiera-video check-data writes",
    ):
        write_shards(one_video(tmp_path / "gone.mp4"), tmp_path, "y")
    (tmp_path / "frames").mkdir()
    with pytest.raises(ManifestError, match=r"frames: is not a video file below 8 GiB, and shards"):
        write_shards(one_video(tmp_path / "frames"), tmp_path, "y")
    with pytest.raises(ManifestError, match=r"is in a shard already; pass the list that the shard"):
        write_shards(read_manifest(str(shards_index)), tmp_path, "y")
    empty = Manifest(records=(), class_names=None, multi_label=False, source="list.csv")
    with pytest.raises(ManifestError, match=r"list.csv: has no videos to write into shards"):
        write_shards(empty, tmp_path, "y")


def test_a_video_that_changes_while_it_is_copied(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"1234")

    def grow(planned: Any) -> Any:
        video.write_bytes(b"12345678")
        return planned

    with pytest.raises(
        ManifestError, match=r"a.mp4: had 4 bytes and now has 8; wait until its download is compl"
    ):
        write_shards(one_video(video), tmp_path / "out", "train", progress=grow)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".train.unfinished.json"]
