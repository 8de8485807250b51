"""`hiera-video info`: facts for a bug report, and tables of models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hiera_video.cli.info import main
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import config_for
from hiera_video.models.step_memory import count_saved_bytes

BASE = """\
hiera_base_16x224: input [3, 16, 224, 224], 400 classes
stage  blocks  grid     tokens  channels  heads  attention
1      2       8×56×56  25088   96        1      unit
2      3       8×28×28  6272    192       2      unit
3      16      8×14×14  1568    384       4      global, first unit
4      3       8×7×7    392     768       8      global
parameters     51.09 M
MACs           101.7 G a clip
training step  0.82 GB for weights, gradients and AdamW, about 1."""


def test_a_model_and_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hiera_base_16x224"]) == 0
    assert capsys.readouterr().out.startswith(BASE)
    assert main(["ssv2_hiera_l_32", "mae_hiera_micro_16x32"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("hiera_large_16x224: input [3, 32, 224, 224], 174 classes\n")
    assert "1      2       16×56×56  50176   144       2      unit\n" in out
    assert "mae_hiera_micro_16x32: input [3, 16, 32, 32], masked autoencoder\n" in out


def test_a_run_is_described_by_its_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(
        "model: {name: hiera_micro_16x32}\nclip: {num_frames: 16}\n"
    )
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}: no intact checkpoint\nhiera_micro_16x3")
    step = tmp_path / "checkpoints" / "step_00000006"
    step.mkdir(parents=True)
    (step / "meta.json").write_text('{"step": 6, "model": {"num_classes": 5}}')
    for name in ("best", "last"):
        (tmp_path / "checkpoints" / name).symlink_to("step_00000006")
    assert main(["--run", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(
        f"{tmp_path}: trained for 6 steps, best checkpoint step_00000006\n"
        "hiera_micro_16x32: input [3, 16, 32, 32], 5 classes\n"
    )


def test_a_file_of_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("hiera_micro_16x32", num_classes=5)
    torch_file, other = tmp_path / "x.pth", tmp_path / "x.safetensors"
    torch.save({"model_state": model.state_dict(), "args": tmp_path}, torch_file)
    save_file({"a": torch.zeros(1)}, other)
    mae = tmp_path / "mae.pth"
    torch.save(create_model("mae_hiera_micro_16x32").state_dict(), mae)
    assert main([str(torch_file), str(other), str(mae)]) == 0
    assert capsys.readouterr().out == (
        f"{torch_file}: torch file with a model for video, 64 channels and 4 blocks, head of 5 "
        f"classes; load it with hv.create_model(NAME, pretrained='{torch_file}') or "
        f"model.pretrained={torch_file}\n"
        f"{other}: safetensors file of 1 tensor, none of a Hiera\n"
        f"{mae}: torch file with a model for video, 64 channels and 4 blocks, masked autoencoder; "
        f"load it with hv.create_model(NAME, pretrained='{mae}') or model.pretrained={mae}\n"
    )
    torch_file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"x\.pth: cannot be read"):
        main([str(torch_file)])


def test_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"hiera-video", "python", "torch", "pyav", "decord", "[train]", "[features]"} <= {*names}


def test_what_is_none_of_these() -> None:
    with pytest.raises(ConfigError, match="hiera_base: no model, run or configuration; "):
        main(["hiera_base"])


def test_saved_bytes_grow_with_the_clip() -> None:
    model = Hiera(config_for("hiera_micro_16x32")).train()
    small = count_saved_bytes(model, (3, 16, 32, 32))
    larger = Hiera(config_for("hiera_micro_16x32", input_size=(32, 32, 32))).train()
    assert small > 4 * 512 * 64 * 4  # 512 tokens of 64 channels in float32, four times
    assert 1.8 < count_saved_bytes(larger, (3, 32, 32, 32)) / small < 2.5
