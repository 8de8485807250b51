"""The plain ViT through the commands: pre-training, fine-tuning, test, features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hiera_video as hv

SHORT = ("train.epochs=1", "train.batch_size=4", "data.workers=0")


@pytest.mark.slow
def test_a_plain_vit_is_trained_tested_and_extracted(
    videos: Path, tmp_path: Path, tool: Any
) -> None:
    lists = (f"data.train={videos / 'train.csv'}", f"data.val={videos / 'val.csv'}")
    mae, run = tmp_path / "mae", tmp_path / "run"

    def call(*arguments: str) -> str:
        done = tool(*arguments)
        assert done.returncode == 0, done.stderr
        return str(done.stderr)

    pretrain = ("train_net.py", "--cfg", "motion_hiera_micro_mae", *SHORT, *lists)
    tube = ("mae.masking=tube", "mae.target_frames=all")
    call(*pretrain, "model.name=mae_vit_micro_16x32", *tube, f"out_dir={mae}")
    finetune = ("train_net.py", "--cfg", "motion_hiera_micro", *SHORT, *lists)
    log = call(
        *(*finetune, "model.name=vit_micro_16x32"),
        *(f"model.pretrained={mae}", f"out_dir={run}"),
    )
    assert "newly initialised: head, norm" in log
    call("test_net.py", "--run", str(run), "test.clips=1", "test.crops=1")
    assert json.loads((run / "results.json").read_text())["evaluated"] == 6
    features = tmp_path / "features"
    source = ("--run", str(run), f"input={videos / 'val.csv'}", f"output={features}")
    call("extract_features.py", *source, "data.workers=0")
    store = hv.FeatureStore(str(features))
    assert store.num_videos == 6 and store[0].features.shape[1] == 64
