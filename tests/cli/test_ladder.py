"""A rung of the ladder through the commands: pre-training, fine-tuning, test, features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import hiera_video as hv
from hiera_video.export.program import capture

SHORT = ("train.epochs=1", "train.batch_size=4", "data.workers=0")


@pytest.mark.slow
def test_a_rung_is_trained_tested_and_extracted(videos: Path, tmp_path: Path, tool: Any) -> None:
    lists = (f"data.train={videos / 'train.csv'}", f"data.val={videos / 'val.csv'}")
    mae, run = tmp_path / "mae", tmp_path / "run"

    def call(*arguments: str) -> str:
        done = tool(*arguments)
        assert done.returncode == 0, done.stderr
        return str(done.stderr)

    name = "ladder_c_micro_16x32"
    pretrain = ("train_net.py", "--cfg", "motion_ladder_micro_mae", f"model.name=mae_{name}")
    call(*pretrain, *lists, *SHORT, f"out_dir={mae}")
    finetune = ("train_net.py", "--cfg", "motion_ladder_micro", f"model.name={name}")
    log = call(*finetune, *lists, *SHORT, f"model.pretrained={mae}", f"out_dir={run}")
    assert "newly initialised: head, norm" in log
    call("test_net.py", "--run", str(run), "test.clips=1", "test.crops=1")
    assert json.loads((run / "results.json").read_text())["evaluated"] == 6
    features = tmp_path / "features"
    source = ("--run", str(run), f"input={videos / 'val.csv'}", f"output={features}")
    call("extract_features.py", *source, "data.workers=0")
    assert len(hv.FeatureStore(str(features)).clips()) >= 6


@pytest.mark.slow
@torch.no_grad()
def test_mvitv2_is_captured_for_any_number_of_clips() -> None:
    model = hv.create_model("mvitv2_micro_16x32", num_classes=5).eval()
    program, clips = capture(model, "logits").module(), torch.randn(3, 3, 16, 32, 32)
    torch.testing.assert_close(program(clips), model(clips), atol=1e-5, rtol=1e-4)
