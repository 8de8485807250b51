"""Shards are the same bytes whoever makes them: workers, other processes, after a kill, with a video that breaks late."""

from __future__ import annotations

import ctypes
import errno
import fcntl
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
from hiera_video.features import shard_reading
from hiera_video.features.engines import Tally, make, place, run_here
from hiera_video.features.shard_claims import Claims, _order
from hiera_video.features.shard_reading import Ask, VideoPart
from hiera_video.features.shards import Work
from hiera_video.workflows.extract import make_encoder, make_work, read_input

from .conftest import BROKEN, FRAMES

Configured = Callable[..., Config]
Extract = Callable[..., int]


def contents(output: Path) -> dict[str, bytes]:
    """Every file of an extraction, by its path."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
    }


def test_every_window_is_there_once_and_a_broken_video_costs_its_own_row(undisturbed: Path) -> None:
    store = hv.FeatureStore(undisturbed)
    assert store.is_complete and len(store) == len(FRAMES) and store.verify() == []
    for row, count in enumerate(FRAMES):
        video = store[row]
        if row == BROKEN:
            assert (video.status, video.reason) == (
                "broken",
                "container",
            ) and "cannot be opened" in str(video.message)
            continue
        windows = -(-count // 16)
        assert video.status == "ok" and video.features.shape == (windows, 256)
        assert video.start_seconds.tolist() == pytest.approx(
            [number * 16 / 12 for number in range(windows)]
        )
        assert video.end_seconds[-1] == pytest.approx(count / 12)
        assert video.tail.tolist() == [False] * (windows - 1) + [count % 16 > 0]
    assert store.table().num_rows == store.clips().num_rows + 1
    assert sorted(path.name for path in (undisturbed / "shards" / "00000").glob("*.json")) == [
        "00000000.json",
        "00000001.json",
        "00000002.json",
    ]


def test_features_are_the_models_own(
    undisturbed: Path, configured: Configured, tmp_path: Path
) -> None:
    """Computed again without anything of the extraction but the file's frames."""
    from hiera_video.data.transforms.train_eval import EvalTransform

    store, config = hv.FeatureStore(undisturbed), configured(tmp_path)
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


def test_workers_change_nothing(undisturbed: Path, extract: Extract, tmp_path: Path) -> None:
    assert extract(tmp_path / "out", "data.workers=2") == 0
    assert contents(tmp_path / "out") == contents(undisturbed)


def test_parts_of_long_videos_change_nothing_but_the_reading(
    undisturbed: Path, configured: Configured, tmp_path: Path
) -> None:
    for workers in (0, 2):
        config = configured(tmp_path / str(workers), f"data.workers={workers}")
        encoder = make_encoder(config)
        work = make_work(config, read_input(config), encoder)
        work.read.part = 2  # the longest has six windows
        assert run_here(work, encoder, progress=False).shards == 3
        assert contents(tmp_path / str(workers)) == contents(undisturbed)


def test_an_interrupted_extraction_goes_on(
    undisturbed: Path, extract: Extract, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    shards = out / "shards" / "00000"
    (shards / "00000001.json").unlink()  # killed before the last rename
    (shards / "00000001.parquet").write_bytes(b"PAR1")
    (shards / ".00000001.safetensors.77.partial").write_bytes(b"half")
    before = (shards / "00000000.safetensors").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert extract(out) == 3  # one of the three videos that were left is broken
    assert "5 of 8 videos were finished before" in caplog.text and f"{out}: complete" in caplog.text
    assert contents(out) == contents(undisturbed)
    assert (shards / "00000000.safetensors").stat().st_mtime_ns == before


def test_other_settings_or_weights_are_refused(
    undisturbed: Path, extract: Extract, tmp_path: Path
) -> None:
    words = r"was begun with other settings \(features.window was None, now 2.0\); make them equal or choose another"
    with pytest.raises(ValueError, match=words):
        extract(undisturbed, "features.window=2.0")
    hv.save_pretrained(hv.create_model("hiera_micro_16x32", num_classes=3), tmp_path / "other")
    with pytest.raises(ValueError, match=r"other settings \(weights was \w{12}…, now \w{12}…\)"):
        extract(undisturbed, f"model.pretrained={tmp_path / 'other'}")
    with pytest.raises(ValueError, match=r"other settings \(videos was \w{12}…, now \w{12}…\)"):
        extract(undisturbed, f"features.input={Path(hv.FeatureStore(undisturbed)[0].path)}")


def test_the_environment_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (place().rank, place().world) == (0, 1)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (place().rank, place().world, place().local_rank) == (5, 8, 0)


def test_what_was_done_in_words() -> None:
    tally = Tally(shards=2, clips=300, videos=40, broken=1, seconds=10.0, waited=0.5)
    assert tally.in_words(4) == (
        "300 clips of 40 videos in 2 shards, 30.0 clips/s; 1 videos could not be read: rows with status=broken say why"
    )
    bound = Tally(shards=2, clips=300, videos=40, seconds=10.0, waited=6.2)
    assert bound.in_words(4).endswith(
        "decode-bound: the model waited for frames 62% of the time, raise data.workers=4"
    )


# -- claims ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def work(configured: Configured, tmp_path: Path) -> Work:
    config = configured(tmp_path / "claims", "features.shard_videos=1")
    return make_work(config, read_input(config), make_encoder(config))


def test_ranks_begin_with_their_own_and_help_the_others() -> None:
    assert list(_order(5, 0, 2)) == [0, 2, 4, 3, 1] and list(_order(5, 1, 2)) == [1, 3, 4, 2, 0]
    assert list(_order(4, 0, 1)) == [0, 1, 2, 3] and list(_order(1, 1, 2)) == [0]


def test_a_shard_has_one_maker_at_a_time(work: Work) -> None:
    first, second = Claims(work, rank=0, world=2), Claims(work, rank=1, world=2)
    assert [next(first), next(second), next(first)] == [0, 1, 2]
    assert list(second) == [
        3,
        5,
        7,
        6,
        4,
    ]  # the first one's, from their end, but for those it holds
    assert second.elsewhere == 2 and list(first) == []
    first.release(0)
    assert next(Claims(work)) == 0  # it was given up unfinished
    json_file = work.files.path(2, "json")
    json_file.parent.mkdir(parents=True)
    json_file.write_text("{}")
    first.release(2)
    assert 2 not in list(Claims(work))


def test_without_locks_each_rank_makes_its_own(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert list(Claims(work, rank=1, world=3)) == [1, 4, 7]


def test_two_processes_at_once_share_the_shards(
    undisturbed: Path, configured: Configured, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tmp_path / "out")
    encoder = make_encoder(config)
    work = make_work(config, read_input(config), encoder)
    held = Claims(work)
    assert next(held) == 0
    with caplog.at_level(logging.INFO):
        assert run_here(work, encoder, rank=1, world=2, progress=False).shards == 2
    assert (
        "other processes are busy with shards here; once they end, the same command finishes"
        in caplog.text
    )
    held.release(0)
    assert run_here(work, encoder, progress=False).shards == 1
    assert contents(tmp_path / "out") == contents(undisturbed)


# -- videos that break -------------------------------------------------------------------------------------------------


def test_a_video_that_hangs_costs_its_own_row(
    undisturbed: Path, extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = hv.FeatureStore(undisturbed)[2].path

    def hang(path: str, backend: Any) -> Any:
        if path == hung:
            ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock
        return hv.open_video(path, backend)

    monkeypatch.setattr(shard_reading, "open_video", hang)
    out = tmp_path / "out"
    assert extract(out, "data.workers=1", "data.deadline_seconds=2", "features.max_broken=0.3") == 0
    ours, reference = hv.FeatureStore(out), hv.FeatureStore(undisturbed)
    assert (ours[2].status, ours[2].reason) == ("broken", "hung")
    for row in (0, 1, 3, 5, 6, 7):
        assert torch.allclose(ours[row].features, reference[row].features, atol=1e-5)
    assert json.loads((out / "quarantine.jsonl").read_text())["path"] == hung
    first = contents(out)
    shutil.rmtree(
        out / "shards"
    )  # made again, it is known from the start, and the bytes are the same
    assert extract(out, "data.workers=1", "features.max_broken=0.3") == 0
    assert contents(out) == first


def test_a_long_video_that_breaks_late_leaves_no_trace_in_its_shard(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 3 has six windows, of which the second part of two cannot be read: as if its first part could not."""
    outputs = []
    for name, bad in (("late", 2), ("early", 0)):
        config = configured(tmp_path / name, "features.max_broken=0.3")
        encoder = make_encoder(config)
        work = make_work(config, read_input(config), encoder)
        work.read.part = 2

        def results(asks: Iterable[Ask]) -> Iterator[VideoPart | UnreadableVideo]:
            for ask in asks:
                if (ask.record.row, ask.first) == (3, bad):  # noqa: B023
                    yield UnreadableVideo(
                        row=3, path=ask.record.path, reason="corrupt", message="torn"
                    )
                else:
                    yield work.read(ask, lambda path: None)  # noqa: B023

        tally = Tally()
        make(work, encoder, Claims(work), results, tally)
        assert tally.shards == 3 and tally.broken == 2
        outputs.append(contents(tmp_path / name / "shards"))
        assert hv.FeatureStore(tmp_path / name)[3].reason == "corrupt"
    assert outputs[0] == outputs[1]


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_file_a_video_for_those_who_expect_it(
    undisturbed: Path, extract: Extract, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    stages = "[2,3]" if kind == "npz" else "[3]"
    assert (
        extract(out, f"features.format={kind}", f"features.stages={stages}", "features.dtype=fp16")
        == 0
    )
    files = sorted((out / "arrays" / "00000").iterdir())
    assert [path.name for path in files] == [
        f"{row:08d}_{row}.{kind}" for row in range(8) if row != BROKEN
    ]
    reference, store = hv.FeatureStore(undisturbed), hv.FeatureStore(out)
    content = np.load(files[3])
    array = content if kind == "npy" else content["stage3"]
    assert array.dtype == np.float16 and np.array_equal(array, store[3].features.numpy())
    assert np.allclose(array, reference[3].features.numpy(), atol=2e-2)
    if kind == "npz":
        assert content["stage2"].shape == (6, *store.notes["names"]["stage2"])
        assert (
            content["start_seconds"].tolist() == store[3].start_seconds.tolist()
            and content["tail"][-1]
        )


def test_short_videos_without_tails_say_so(extract: Extract, tmp_path: Path) -> None:
    assert extract(tmp_path / "out", "features.tail=drop") == 0
    store = hv.FeatureStore(tmp_path / "out")
    assert (store[2].status, len(store[2].features)) == ("short", 0)
    assert len(store[0].features) == 2 and not store.clips().column("tail").to_numpy().any()


def test_the_size_of_a_shard_comes_from_a_sample(configured: Configured, tmp_path: Path) -> None:
    """18 windows in 7 videos that can be read: 2.6 a video."""
    for workers in (0, 2):
        overrides = (
            "features.shard_videos=null",
            "features.shard_clips=8",
            f"data.workers={workers}",
        )
        config = configured(tmp_path / str(workers), *overrides)
        work = make_work(config, read_input(config), make_encoder(config))
        assert work.shard_videos == 3 and work.num_shards == 3
        assert [len(work.shard(number)) for number in range(3)] == [3, 3, 2]


def test_too_many_broken_videos_are_exit_code_3(
    extract: Extract, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert extract(tmp_path / "out", "features.max_broken=0.1") == 3
    assert "1 broken videos are over features.max_broken=0.1" in caplog.text
    assert "row 4 cannot be read (container): " in caplog.text


def test_from_python(
    configured: Configured, undisturbed: Path, folder: Path, tmp_path: Path
) -> None:
    config = configured(tmp_path)
    store = hv.extract_features(
        config, f"{folder}/[13].mp4", tmp_path / "out", window=2.0, stride=1.0, workers=0
    )
    assert [Path(video.path).name for video in store] == ["1.mp4", "3.mp4"]
    assert np.diff(store[1].start_seconds).tolist() == pytest.approx(
        [1.0] * (len(store[1].start_seconds) - 1)
    )
    with pytest.raises(
        ValueError, match="'windows' is no key of features; it has input, output, stages, pooling"
    ):
        hv.extract_features(config, folder, tmp_path / "x", windows=2)
