"""Shards have the same bytes for any number of workers and processes, and after interruptions."""

from __future__ import annotations

import ctypes
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hiera_video as hv
from hiera_video.config.schema import Config
from hiera_video.data.dataset import UnreadableVideo
from hiera_video.errors import HieraVideoError
from hiera_video.features import shard_reading
from hiera_video.features.engines import (
    ExtractionStats,
    compute_shards,
    process_rank,
    run_local,
)
from hiera_video.features.shard_reading import VideoPart, WindowRequest
from hiera_video.utils.resumable import ShardClaims
from hiera_video.workflows.extract import read_input
from hiera_video.workflows.extraction_plan import make_encoder, make_plan

from .conftest import FRAMES, UNREADABLE, contents

MakeConfig = Callable[..., Config]
Extract = Callable[..., int]


def test_store_has_every_window_and_a_row_for_the_unreadable_video(reference_store: Path) -> None:
    store = hv.FeatureStore(reference_store)
    assert store.is_complete and len(store) == len(FRAMES) and store.verify() == []
    for row, count in enumerate(FRAMES):
        video = store[row]
        if row == UNREADABLE:
            assert (video.status, video.reason) == ("broken", "container")
            assert "cannot be opened" in str(video.message)
            continue
        windows = -(-count // 16)
        starts = [number * 16 / 12 for number in range(windows)]
        assert video.status == "ok" and video.features.shape == (windows, 256)
        assert video.start_seconds.tolist() == pytest.approx(starts)
        assert video.end_seconds[-1] == pytest.approx(count / 12)
        assert video.tail.tolist() == [False] * (windows - 1) + [count % 16 > 0]
    assert store.table().num_rows == store.clips().num_rows + 1
    names = sorted(path.name for path in (reference_store / "shards" / "00000").glob("*.json"))
    assert names == ["00000000.json", "00000001.json", "00000002.json"]


def test_features_equal_the_models_output(
    reference_store: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    from hiera_video.data.transforms.train_eval import EvalTransform

    store, config = hv.FeatureStore(reference_store), make_config(tmp_path)
    encoder = make_encoder(config, torch.device("cpu"))
    transform = EvalTransform(32, 1, config.augment.mean, config.augment.std)
    with hv.open_video(store[3].path) as video:
        clips = torch.cat(
            [transform(video.frames(range(start, start + 16))) for start in (0, 16, 32, 48, 64)]
        )
    with torch.inference_mode():
        maps = encoder.model.forward_features(clips)
    assert torch.allclose(store[3].features[:5], maps.mean(dim=(1, 2, 3)), atol=1e-5)
    assert (store[3].features[0] - store[3].features[1]).abs().max() > 1e-2


@pytest.mark.slow
def test_workers_do_not_change_the_bytes(
    reference_store: Path, extract: Extract, tmp_path: Path
) -> None:
    assert extract(tmp_path / "out", "data.workers=2") == 0
    assert contents(tmp_path / "out") == contents(reference_store)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_reading_in_parts_does_not_change_the_bytes(
    reference_store: Path, make_config: MakeConfig, tmp_path: Path, workers: int
) -> None:
    config = make_config(tmp_path / "out", f"data.workers={workers}")
    encoder = make_encoder(config)
    plan = make_plan(config, read_input(config), encoder)
    plan.read.windows_per_part = 2  # the longest video has six windows
    assert run_local(plan, encoder, progress=False).shards == 3
    assert contents(tmp_path / "out") == contents(reference_store)


def test_interrupted_extraction_resumes(
    reference_store: Path, extract: Extract, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference_store, out)
    shards = out / "shards" / "00000"
    (shards / "00000001.json").unlink()  # killed before the last rename
    (shards / "00000001.parquet").write_bytes(b"PAR1")
    (shards / ".00000001.safetensors.77.partial").write_bytes(b"half")
    before = (shards / "00000000.safetensors").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert extract(out) == 0  # one of the eight videos of the store is unreadable
    assert "resuming: 5 of 8 videos already finished" in caplog.text
    assert f"{out}: complete" in caplog.text
    assert contents(out) == contents(reference_store)
    assert (shards / "00000000.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("place", ["claim", "write"])
def test_an_output_that_is_deleted_meanwhile_is_one_line(
    make_config: MakeConfig, tmp_path: Path, place: str
) -> None:
    """Issue I, 4.2: a write would create the folder again, without its metadata."""
    out = tmp_path / "out"
    config = make_config(out)
    encoder = make_encoder(config)
    plan = make_plan(config, read_input(config), encoder)
    claims: Any = ShardClaims(plan.files, range(3))
    if place == "write":
        claims = iter([next(claims)])
    shutil.rmtree(out)

    def read(requests: Iterable[WindowRequest]) -> Iterator[Any]:
        yield from (plan.read(request, lambda path: None) for request in requests)

    words = rf"^{out}: was deleted meanwhile; run the same command again$"
    with pytest.raises(HieraVideoError, match=words):
        list(compute_shards(plan, encoder, claims, read, ExtractionStats()))
    assert not out.exists()


def test_other_settings_or_weights_are_refused(
    reference_store: Path, extract: Extract, tmp_path: Path
) -> None:
    message = (
        r"has features of other settings \(features.window was None, now 2.0\); restore them or "
        "choose another output"
    )
    with pytest.raises(ValueError, match=message):
        extract(reference_store, "features.window=2.0")
    hv.save_pretrained(hv.create_model("hiera_micro_16x32", num_classes=3), tmp_path / "other")
    with pytest.raises(ValueError, match=r"other settings \(weights was \w{12}…, now \w{12}…\)"):
        extract(reference_store, f"model.pretrained={tmp_path / 'other'}")
    with pytest.raises(ValueError, match="has features of another list of videos; a store grows"):
        path = hv.FeatureStore(reference_store)[0].path
        extract(reference_store, f"features.input={path}")


def test_rank_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (process_rank().rank, process_rank().world_size) == (0, 1)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    found = process_rank()
    assert (found.rank, found.world_size, found.local_rank) == (5, 8, 0)


def test_stats_describe_rate_failures_and_decode_bound() -> None:
    stats = ExtractionStats(shards=2, clips=300, videos=40, unreadable=1, seconds=10.0, waited=0.5)
    assert stats.describe(4) == (
        "300 clips of 40 videos in 2 shards, 30.0 clips/s; 1 unreadable video: see the rows with "
        "status=broken"
    )
    bound = ExtractionStats(shards=2, clips=300, videos=40, seconds=10.0, waited=6.2)
    assert bound.describe(4).endswith(
        "decode-bound: the model waited for frames 62% of the time, raise data.workers=4"
    )


def test_two_processes_share_the_shards(
    reference_store: Path, make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(tmp_path / "out")
    encoder = make_encoder(config)
    plan = make_plan(config, read_input(config), encoder)
    held = ShardClaims(plan.files, range(3))
    assert next(held) == 0
    with caplog.at_level(logging.INFO):
        assert run_local(plan, encoder, rank=1, world_size=2, progress=False).shards == 2
    assert "1 shard left to other processes; if these are interrupted, run" in caplog.text
    held.release(0)
    assert run_local(plan, encoder, progress=False).shards == 1
    assert contents(tmp_path / "out") == contents(reference_store)


# -- unreadable videos -------------------------------------------------------------------------


@pytest.mark.fault
def test_video_that_hangs_costs_its_own_row(
    reference_store: Path, extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = hv.FeatureStore(reference_store)[2].path

    def hang(path: str, backend: Any) -> Any:
        if path == hung:
            ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock
        return hv.open_video(path, backend)

    monkeypatch.setattr(shard_reading, "open_video", hang)
    out = tmp_path / "out"
    assert extract(out, "data.workers=1", "data.deadline_seconds=4", "features.max_broken=0.3") == 0
    ours, reference = hv.FeatureStore(out), hv.FeatureStore(reference_store)
    assert (ours[2].status, ours[2].reason) == ("broken", "hung")
    for row in (0, 1, 3, 5, 6, 7):
        assert torch.allclose(ours[row].features, reference[row].features, atol=1e-5)
    assert json.loads((out / "quarantine.jsonl").read_text())["path"] == hung
    first = contents(out)
    shutil.rmtree(out / "shards")
    # now it is quarantined from the start, and the bytes are the same
    assert extract(out, "data.workers=1", "features.max_broken=0.3") == 0
    assert contents(out) == first


def test_video_that_becomes_unreadable_late_leaves_no_trace(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """Row 3 has six windows. An unreadable second part equals an unreadable first part."""
    outputs = []
    for name, bad in (("late", 2), ("early", 0)):
        config = make_config(tmp_path / name, "features.max_broken=0.3")
        encoder = make_encoder(config)
        plan = make_plan(config, read_input(config), encoder)
        plan.read.windows_per_part = 2

        def read(
            requests: Iterable[WindowRequest],
        ) -> Iterator[VideoPart | UnreadableVideo]:
            for request in requests:
                if (request.record.row, request.first) == (3, bad):  # noqa: B023
                    path = request.record.path
                    yield UnreadableVideo(row=3, path=path, reason="corrupt", message="torn")
                else:
                    yield plan.read(request, lambda path: None)  # noqa: B023

        stats = ExtractionStats()
        claims = ShardClaims(plan.files, range(3))
        assert len(list(compute_shards(plan, encoder, claims, read, stats))) == 3
        assert stats.shards == 3 and stats.unreadable == 2
        outputs.append(contents(tmp_path / name / "shards"))
        assert hv.FeatureStore(tmp_path / name)[3].reason == "corrupt"
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_array_file_per_video(
    reference_store: Path, extract: Extract, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    stages = "[2,3]" if kind == "npz" else "[3]"
    overrides = (f"features.format={kind}", f"features.stages={stages}", "features.dtype=fp16")
    assert extract(out, *overrides) == 0
    files = sorted((out / "arrays" / "00000").iterdir())
    expected = [f"{row:08d}_{row}.{kind}" for row in range(8) if row != UNREADABLE]
    assert [path.name for path in files] == expected
    reference, store = hv.FeatureStore(reference_store), hv.FeatureStore(out)
    content = np.load(files[3])
    array = content if kind == "npy" else content["stage3"]
    assert array.dtype == np.float16 and np.array_equal(array, store[3].features.numpy())
    assert np.allclose(array, reference[3].features.numpy(), atol=2e-2)
    if kind == "npz":
        assert content["stage2"].shape == (6, *store.metadata["names"]["stage2"])
        assert content["start_seconds"].tolist() == store[3].start_seconds.tolist()
        assert content["tail"][-1]


def test_short_videos_without_tails_have_no_features(extract: Extract, tmp_path: Path) -> None:
    assert extract(tmp_path / "out", "features.tail=drop") == 0
    store = hv.FeatureStore(tmp_path / "out")
    assert (store[2].status, len(store[2].features)) == ("short", 0)
    assert len(store[0].features) == 2 and not store.clips().column("tail").to_numpy().any()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_shard_size_is_estimated_from_a_sample(
    make_config: MakeConfig, tmp_path: Path, workers: int
) -> None:
    """18 windows in 7 readable videos: 2.6 per video."""
    overrides = ("features.shard_videos=null", "features.shard_clips=8", f"data.workers={workers}")
    config = make_config(tmp_path, *overrides)
    plan = make_plan(config, read_input(config), make_encoder(config))
    assert plan.shard_videos == 3
    assert [len(plan.shard(number)) for number in range(len(plan.ranges))] == [3, 3, 2]


def test_too_many_unreadable_videos_give_exit_code_3(
    extract: Extract, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert extract(tmp_path / "out", "features.max_broken=0.1") == 3
    assert "1 unreadable video: more than features.max_broken=0.1" in caplog.text
    assert "row 4 is unreadable (container): " in caplog.text


def test_extract_features(make_config: MakeConfig, folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    store = hv.extract_features(
        config, f"{folder}/[13].mp4", tmp_path / "out", window=2.0, stride=1.0, workers=0
    )
    assert [Path(video.path).name for video in store] == ["1.mp4", "3.mp4"]
    starts = store[1].start_seconds
    assert np.diff(starts).tolist() == pytest.approx([1.0] * (len(starts) - 1))
    with pytest.raises(
        ValueError, match="unknown features key 'windows'; choose from input, output, stages"
    ):
        hv.extract_features(config, folder, tmp_path / "x", windows=2)
