"""An extraction over changed videos or a longer list: what is kept, and what is computed again."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hiera_video as hv
from hiera_video.config.schema import Config
from hiera_video.errors import FeatureError
from hiera_video.workflows.extract import read_input
from hiera_video.workflows.extraction_plan import make_encoder, make_plan

from .conftest import UNREADABLE, contents

MakeConfig = Callable[..., Config]
Extract = Callable[..., int]


def test_shards_with_unreadable_videos_can_be_computed_again(
    reference_store: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    shutil.copytree(reference_store, tmp_path / "out")
    config = make_config(tmp_path / "out")
    plan = make_plan(config, read_input(config), make_encoder(config))
    plan.files.discard_unreadable()
    assert plan.files.finished() == [0, 2]


# -- changed and new videos (issue I, 3.5) --------------------------------------------------------


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy of the videos that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "videos"))


def test_a_video_replaced_in_place_is_extracted_again(
    extract: Extract, own_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, given = tmp_path / "out", f"features.input={own_folder}"
    assert extract(out, given) == 0
    before, marker = contents(out), out / "shards" / "00000" / "00000000.json"
    with caplog.at_level(logging.INFO):
        assert extract(out, given) == 0
    assert contents(out) == before
    assert "skipped 1 unreadable video of earlier runs; one that is" in caplog.text
    shutil.copy(own_folder / "3.mp4", own_folder / "new")
    (own_folder / "new").replace(own_folder / "0.mp4")
    with caplog.at_level(logging.INFO):
        assert extract(out, given) == 0
    assert "1 video changed since extraction" in caplog.text
    store = hv.FeatureStore(out)
    assert torch.equal(store[0].features, store[3].features) and store.is_complete
    assert json.loads(marker.read_text())["clips"] == 6 + 1 + 1  # rows 0, 1 and 2


def test_an_unreadable_video_that_is_repaired_is_extracted(
    extract: Extract, own_folder: Path, tmp_path: Path
) -> None:
    out, given = tmp_path / "out", f"features.input={own_folder}"
    assert extract(out, given) == 0
    assert hv.FeatureStore(out)[UNREADABLE].status == "broken"
    shutil.copy(own_folder / "3.mp4", own_folder / f"{UNREADABLE}.mp4")
    assert extract(out, given) == 0
    assert hv.FeatureStore(out)[UNREADABLE].status == "ok"


def test_shards_of_earlier_versions_without_states_are_kept(
    extract: Extract, own_folder: Path, tmp_path: Path
) -> None:
    out, given = tmp_path / "out", f"features.input={own_folder}"
    assert extract(out, given) == 0
    for marker in out.glob("shards/*/*.json"):
        summary = json.loads(marker.read_text())
        assert len(summary.pop("states")) == summary["videos"]
        marker.write_text(json.dumps(summary))
    before = contents(out)
    (own_folder / "0.mp4").touch()
    assert extract(out, given) == 0
    assert contents(out) == before


@pytest.mark.parametrize("name", ["9.mp4", "00.mp4"], ids=["last", "first"])
def test_a_store_grows_by_new_videos(
    extract: Extract,
    own_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """A new video of a folder comes after the store's own, whatever its name."""
    out, given = tmp_path / "out", f"features.input={own_folder}"
    assert extract(out, given) == 0
    before = contents(out / "shards")
    shutil.copy(own_folder / "3.mp4", own_folder / name)
    with caplog.at_level(logging.INFO):
        assert extract(out, given) == 0
    assert "grows from 8 to 9 videos" in caplog.text
    store = hv.FeatureStore(out)
    assert store.is_complete and store.num_videos == 9 and Path(store[8].path).name == name
    assert torch.equal(store[8].features, store[3].features)
    assert store.verify() == []
    after = contents(out / "shards")
    assert [path for path in before if path.startswith("00000/00000002") is False] == [
        path for path in before if after[path] == before[path]
    ]
    assert extract(out, given) == 0 and contents(out / "shards") == after
    (out / "shards" / "00000" / "00000002.json").unlink()  # interrupted while it grew
    assert extract(out, given) == 0 and contents(out / "shards") == after


def test_another_list_is_refused(extract: Extract, own_folder: Path, tmp_path: Path) -> None:
    out, given = tmp_path / "out", f"features.input={own_folder}"
    assert extract(out, given) == 0
    (own_folder / "0.mp4").unlink()
    words = (
        "has features of another list of videos; a store grows only by videos that follow its own: "
        "append them to its list, or choose another output"
    )
    with pytest.raises(FeatureError, match=words):
        extract(out, given)


# -- output ------------------------------------------------------------------------------------
