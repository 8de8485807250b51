"""`train.task=probe` on real MP4 files with the weights of a masked autoencoder: features are kept, settings come from the
training videos, and what cannot work is said."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hiera_video.config.load import load_config
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.workflows.build import manifest_of, num_classes_of
from hiera_video.workflows.probe import probe_run, table

CONFIG = "configs/motion_hiera_micro.yaml"
SMALL = [
    "probe.neighbours=[1,3]",
    "probe.temperatures=[0.1]",
    "probe.lrs=[1e-3,1e-2]",
    "probe.weight_decays=[0.0]",
]


@pytest.fixture(scope="module")
def common(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a probe of a masked autoencoder's weights."""
    torch.manual_seed(0)
    weights = save_pretrained(
        create_model("mae_hiera_micro_16x32"), tmp_path_factory.mktemp("mae") / "mae"
    )
    return [
        *(
            "train.task=probe",
            f"model.pretrained={weights}",
            "data.workers=0",
            *SMALL,
            "probe.epochs=3",
        ),
        *(
            f"data.train={videos / 'train.csv'}",
            f"data.val={videos / 'val.csv'}",
            "test.batch_size=4",
        ),
    ]


def run(out: Path, *overrides: str, dry_run: bool = False) -> dict[str, Any]:
    config = load_config(CONFIG, [*overrides, f"out_dir={out}"])
    train, val = (
        manifest_of(config, "train"),
        manifest_of(config, "val") if config.data.val else None,
    )
    classes = num_classes_of(config, train, *([val] if val else []))
    assert probe_run(config, train, val, classes, dry_run=dry_run) == 0
    found: dict[str, Any] = (
        json.loads((out / "probe" / "probes.json").read_text()) if not dry_run else {}
    )
    return found


@pytest.fixture(scope="module")
def finished(
    common: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("probed")
    return out, run(out, *common)


def test_results(finished: tuple[Path, dict[str, Any]]) -> None:
    _, results = finished
    assert (results["train_videos"], results["evaluated"], results["of"], results["views"]) == (
        12,
        6,
        6,
        "2x1",
    )
    assert [row["probe"] for row in results["probes"]] == ["knn", "linear", "attentive"]
    for row in results["probes"]:
        assert len(row["sweep"]) == 2 and 0 <= row["top1"] <= 100
        assert row["intervals"]["top1"][0] <= row["top1"] <= row["intervals"]["top1"][1]
        chosen = max(row["sweep"], key=lambda tried: tried["accuracy"])
        assert row["setting"] == {key: value for key, value in chosen.items() if key != "accuracy"}
    assert len(table(results)) == 4 and "(evaluated 6 of 6)" in table(results)[0]


def test_what_was_extracted_before_is_read_again(
    finished: tuple[Path, dict[str, Any]],
    common: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, results = finished
    shutil.copytree(before, tmp_path / "killed")
    shards = sorted((tmp_path / "killed/probe/features/train").rglob("*.npz"))
    assert len(shards) == 3
    shards[1].unlink()  # as a run that was killed leaves it
    with caplog.at_level(logging.INFO):
        again = run(tmp_path / "killed", *common)
    assert again == results
    assert "8 videos already finished, 4 remaining" in caplog.text
    assert "6 videos already finished, 0 remaining" in caplog.text


def test_labels_of_the_test_list_choose_nothing(
    finished: tuple[Path, dict[str, Any]], common: list[str], videos: Path, tmp_path: Path
) -> None:
    turned = tmp_path / "turned.csv"
    lines = [line.split() for line in (videos / "val.csv").read_text().splitlines()]
    turned.write_text("".join(f"{path} {1 - int(label)}\n" for path, label in lines))
    other = run(tmp_path, *common, f"data.val={turned}", f"data.root={videos}")
    for first, second in zip(finished[1]["probes"], other["probes"], strict=True):
        assert first["setting"] == second["setting"] and first["sweep"] == second["sweep"]
        assert second["top1"] == pytest.approx(
            100 - first["top1"], abs=1e-3
        )  # the same answers, all labels turned


def test_a_broken_video_is_counted_and_mean_tokens_are_enough(
    common: list[str], videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    for name in ("val_0.mp4", "val_1.mp4"):
        shutil.copy(videos / name, tmp_path)
    listing = tmp_path / "val.csv"
    listing.write_text("bad.mp4 0\nval_0.mp4 0\nval_1.mp4 1\n")
    results = run(tmp_path / "run", *common, f"data.val={listing}", "probe.kinds=[linear]")
    assert (results["evaluated"], results["of"]) == (2, 3)
    assert "val: row 0 cannot be read" in caplog.text
    first = next((tmp_path / "run/probe/features/train").rglob("*.npz"))
    assert first.stat().st_size < 20_000  # 96 channels a view, not all tokens


def test_a_video_taken_out_of_quarantine_is_read(
    common: list[str], videos: Path, tmp_path: Path
) -> None:
    line = {"path": str(videos / "val_1.mp4"), "reason": "hung"}
    (tmp_path / "quarantine.jsonl").write_text(json.dumps(line) + "\n")
    assert run(tmp_path, *common, "probe.kinds=[knn]")["evaluated"] == 5
    (tmp_path / "quarantine.jsonl").unlink()
    assert run(tmp_path, *common, "probe.kinds=[knn]")["evaluated"] == 6


def test_other_pictures_of_the_same_folders_have_other_features(
    common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for video in range(8):
        folder = tmp_path / str(video)
        folder.mkdir()
        for number in range(16):
            for name, level in (("img", 60 * (video % 2)), ("flow", 100)):
                pixels = np.full((36, 36, 3), level + number, np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}_{number:05d}.jpg")
    listing = tmp_path / "list.csv"
    listing.write_text("".join(f"{video} {video % 2}\n" for video in range(8)))
    pictures = [
        *common,
        f"data.train={listing}",
        f"data.val={listing}",
        "data.decoder=frames",
        "probe.kinds=[knn]",
    ]
    caplog.set_level(logging.INFO)
    for template, top1 in (("img_%05d.jpg", 100), ("flow_%05d.jpg", 50)):  # the second look alike
        found = run(tmp_path / "run", *pictures, f"data.frame_template={template}")
        assert found["probes"][0]["top1"] == top1 and "already finished" not in caplog.text


def test_a_dry_run_writes_nothing(
    common: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(tmp_path / "dry", *common, dry_run=True)
    assert "dry run: features [videos, views, tokens, channels] [2, 2, " in caplog.text
    assert not (tmp_path / "dry").exists()


def test_errors(common: list[str], videos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"the features of 18 videos take .* GB, over probe.max_gigabytes=1e-06; set",
    ):
        run(tmp_path, *common, "probe.max_gigabytes=1e-6")
    with pytest.raises(
        ConfigError,
        match=r"data.val is not set; train.task=probe answers for the videos of data.val",
    ):
        run(tmp_path, *common, "data.val=null")
    listing = tmp_path / "several.csv"
    listing.write_text("train_0.mp4 0;1\ntrain_1.mp4 1\n")
    with pytest.raises(
        ManifestError, match="has several labels a video; probes need one class each"
    ):
        run(tmp_path, *common, f"data.train={listing}", f"data.root={videos}")
    with pytest.raises(ManifestError, match="none of its 1 videos can be read; see above"):
        (tmp_path / "bad.mp4").write_bytes(b"not a video")
        (tmp_path / "bad.csv").write_text("bad.mp4 0\n")
        run(tmp_path, *common, f"data.val={tmp_path / 'bad.csv'}")
    with pytest.raises(
        ConfigError, match=r"mae_hiera_micro_16x32 goes with train.task=pretrain, not probe"
    ):
        load_config("configs/motion_hiera_micro_mae.yaml", ["train.task=probe"])


def test_the_tool(common: list[str], tool: Any, tmp_path: Path) -> None:
    done = tool(
        "train_net.py", "--cfg", CONFIG, *common, f"out_dir={tmp_path}", "probe.kinds=[knn]"
    )
    assert done.returncode == 0, done.stderr
    assert "chosen on the training videos" in done.stderr and "95 % interval" in done.stderr
    done = tool(
        "train_net.py", "--cfg", CONFIG, *common, f"out_dir={tmp_path}", "model.pretrained=null"
    )
    assert done.returncode == 2 and "model.pretrained is not set" in done.stderr
