from __future__ import annotations

import json
import logging
import os
import urllib.error
import zipfile
from dataclasses import replace
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import MaeConfig, config_for
from hiera_video.models.weights.load import (
    find_checkpoint,
    from_pretrained,
    load_pretrained,
    read_weights,
)
from hiera_video.models.weights.published import PUBLISHED, checkpoint_tags
from hiera_video.models.weights.save import save_pretrained

NAME = "hiera_micro_16x32"


@pytest.fixture
def model():
    torch.manual_seed(1)
    return create_model(NAME, num_classes=5).eval()


def same(ours, theirs):
    theirs = theirs.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


def test_the_authors_checkpoint_format(model, tmp_path):
    path = tmp_path / "hiera.pth"
    torch.save(
        {
            "epoch": 3,
            "model_state": model.state_dict(),
            "optimizer_state": {"lr": 0.1},
            "cfg": "A: 1",
        },
        path,
    )
    assert same(create_model(NAME, pretrained=str(path)), model)  # the class count is the file's


def test_a_classifier_without_its_head(model, tmp_path, caplog):
    folder = save_pretrained(model, tmp_path / "whole")
    with caplog.at_level(logging.INFO, logger="hiera_video"):
        bare = create_model(NAME, num_classes=0, pretrained=str(folder))
    assert "dropped: head" in caplog.text
    assert same(bare, model)
    again = from_pretrained(save_pretrained(bare, tmp_path / "bare"))
    assert same(again, model)
    assert not any(name.startswith("head") for name in again.state_dict())
    assert (
        "Encoder without a classifier, input 16 x 32 x 32"
        in (tmp_path / "bare" / "README.md").read_text()
    )


def test_wrapped_states(model, tmp_path):
    path = tmp_path / "ddp.pt"
    torch.save(
        {
            "state_dict": {
                f"module._orig_mod.{name}": value for name, value in model.state_dict().items()
            }
        },
        path,
    )
    assert same(create_model(NAME, num_classes=5, pretrained=str(path)), model)


def test_a_run_folder_gives_its_best_checkpoint(model, tmp_path):
    step = tmp_path / "run" / "checkpoints" / "step_00000010"
    step.mkdir(parents=True)
    with pytest.raises(
        CheckpointError,
        match=r"the run has no checkpoint yet; 'last' is saved while training, 'best' after",
    ):
        read_weights(tmp_path / "run")
    save_file(model.state_dict(), step / "model.safetensors")
    (step.parent / "last").symlink_to(step.name)
    assert same(create_model(NAME, pretrained=str(tmp_path / "run")), model)
    (step / "meta.json").write_text(json.dumps({"class_names": list("abcde")}))
    (step.parent / "best").symlink_to(step.name)
    later = step.with_name("step_00000020")
    later.mkdir()
    save_file(create_model(NAME, num_classes=5).state_dict(), later / "model.safetensors")
    (step.parent / "last").unlink()
    (step.parent / "last").symlink_to(later.name)
    assert same(create_model(NAME, pretrained=str(tmp_path / "run")), model)
    assert read_weights(tmp_path / "run").class_names == tuple("abcde")
    assert same(create_model(NAME, pretrained=str(step)), model)


def test_a_run_without_validation_gives_its_last_checkpoint(tmp_path):
    for which in ("last", "best"):
        (tmp_path / "checkpoints" / which).mkdir(parents=True)
        assert find_checkpoint(tmp_path).name == which
    assert find_checkpoint(tmp_path, "last").name == "last"


def test_newly_initialised_and_dropped_parameters_are_logged(model, tmp_path, caplog):
    torch.save(create_model("mae_hiera_micro_16x32").state_dict(), tmp_path / "mae.pth")
    with caplog.at_level(logging.INFO, logger="hiera_video"):
        report = load_pretrained(model, tmp_path / "mae.pth")
    assert "newly initialised: head, norm; dropped: decoder_blocks, decoder_embed" in caplog.text
    assert "head.projection.weight" in report.newly_initialised
    torch.save(create_model(NAME, num_classes=9).state_dict(), tmp_path / "nine.pth")
    with caplog.at_level(logging.INFO, logger="hiera_video"):
        load_pretrained(model, tmp_path / "nine.pth")
    assert "head newly initialised: the file has 9 classes, the model 5" in caplog.text


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_pickled_code_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state": {"a": torch.zeros(1)}, "bomb": Bomb()}, "bomb.pth")
    with pytest.raises(
        CheckpointError, match=r"bomb.pth: cannot be read .*mkdir whose module posix is blocked"
    ):
        read_weights("bomb.pth")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "short", "text"])
def test_damaged_files_are_rejected(model, tmp_path, suffix, damage):
    path = tmp_path / f"x{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(model.state_dict(), path)
    contents = {"empty": b"", "short": path.read_bytes()[:1000], "text": b"<html>404</html>"}[
        damage
    ]
    path.write_bytes(contents)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(path)


def test_folders_without_weights_are_rejected(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"contains none of model.safetensors, .* and is not a run folder"
    ):
        read_weights(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json: is not valid JSON"):
        read_weights(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config.json: contains a list instead of an object"):
        read_weights(tmp_path)


def test_weights_in_several_files(model, tmp_path):
    state = model.state_dict()
    parts = {"a.safetensors": list(state)[:5], "b.safetensors": list(state)[5:]}
    for part, names in parts.items():
        save_file({name: state[name] for name in names}, tmp_path / part)
    index = tmp_path / "model.safetensors.index.json"
    weight_map = {name: part for part, names in parts.items() for name in names}
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert same(create_model(NAME, num_classes=5, pretrained=str(tmp_path)), model)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lists b.safetensors, missing from the folder"):
        read_weights(tmp_path)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="lists no files; copy the whole folder"):
        read_weights(tmp_path)


def test_unknown_sources_are_rejected():
    with pytest.raises(
        CheckpointError,
        match="mae_k40: no such file, folder or tag of hiera_base_16x224; did you mean the tag mae",
    ):
        read_weights("mae_k40", "hiera_base_16x224")
    with pytest.raises(
        CheckpointError,
        match="known tags: mae_k400_ft_k400, mae_k400; hf-hub:owner/name also works",
    ):
        read_weights("/nowhere", "hiera_base_16x224")


def test_published_addresses():
    assert checkpoint_tags("hiera_base_16x224")["mae_k400"].endswith(
        "/hiera/mae_hiera_base_16x224.pth"
    )
    assert checkpoint_tags()["hiera_tiny_224.mae_in1k_ft_in1k"].endswith(
        "/hiera/hiera_tiny_224.pth"
    )
    assert "hiera_tiny_16x224" not in PUBLISHED  # the authors published none


def test_a_tag_downloads_once_and_its_digest_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = tmp_path / "checkpoints" / "hiera_base_16x224.pth"

    def download(address, path):
        assert address == "https://dl.fbaipublicfiles.com/hiera/hiera_base_16x224.pth"
        torch.save({"model_state": {"norm.weight": torch.ones(2)}}, path)

    with mock.patch.object(torch.hub, "download_url_to_file", side_effect=download) as spy:
        for tag, name in [
            ("mae_k400_ft_k400", "hiera_base_16x224"),
            ("hiera_base_16x224.mae_k400_ft_k400", ""),
        ]:
            assert read_weights(tag, name).state["norm.weight"].tolist() == [1, 1]
    assert spy.call_count == 1
    assert len(cached.with_name(cached.name + ".sha256").read_text().strip()) == 64
    cached.write_bytes(cached.read_bytes() + b"x")
    with pytest.raises(
        CheckpointError,
        match=r"has changed since it was downloaded; delete it and .*sha256 to download",
    ):
        read_weights("mae_k400_ft_k400", "hiera_base_16x224")


def test_offline_error_names_the_cache_path(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    offline = urllib.error.URLError("no network")
    with (
        mock.patch.object(torch.hub, "download_url_to_file", side_effect=offline),
        pytest.raises(
            CheckpointError,
            match=r"on another machine and copy it to .*/checkpoints/mae_hiera_huge_16x224.pth",
        ),
    ):
        create_model("mae_hiera_huge_16x224", pretrained="mae_k400")


def test_the_hub(model, tmp_path):
    folder = save_pretrained(model, tmp_path / "hub")
    with mock.patch("huggingface_hub.snapshot_download", return_value=str(folder)) as spy:
        assert same(create_model(NAME, pretrained="hf-hub:someone/thing@v2"), model)
    assert spy.call_args.args == ("someone/thing",)
    assert spy.call_args.kwargs["revision"] == "v2"
    with (
        mock.patch("huggingface_hub.snapshot_download", side_effect=OSError("offline")),
        pytest.raises(
            CheckpointError,
            match=r"download https://huggingface.co/someone/thing on another machine",
        ),
    ):
        read_weights("hf-hub:someone/thing")
    with (
        mock.patch.dict("sys.modules", {"huggingface_hub": None}),
        pytest.raises(
            CheckpointError, match=r"needs huggingface_hub; pip install 'hiera-video\[hub\]'"
        ),
    ):
        read_weights("hf-hub:someone/thing")


def test_other_head_counts_are_refused(tmp_path):
    mae = create_model(
        "mae_hiera_micro_16x32",
        mae=MaeConfig(decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=2),
    )
    save_pretrained(mae, tmp_path)
    wanted = MaeConfig(decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=4)
    with pytest.raises(
        CheckpointError, match="was made with decoder_num_heads=2, the model has 4; make them equal"
    ):
        create_model("mae_hiera_micro_16x32", mae=wanted, pretrained=str(tmp_path))


@pytest.mark.parametrize("name", [NAME, "mae_hiera_micro_16x32", "hiera_tiny_224"])
def test_round_trip_is_exact(name, tmp_path):
    size = (32, 32) if name.endswith("_224") else (16, 64, 32)
    saved = create_model(name, input_size=size).eval()
    again = from_pretrained(save_pretrained(saved, tmp_path))
    assert again.config == saved.config
    assert getattr(again, "mae", None) == getattr(saved, "mae", None)
    assert same(again, saved)
    assert not again.training


def test_a_folder_without_config_cannot_be_rebuilt(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"has no config.json; build the model with create_model"
    ):
        from_pretrained(tmp_path)


def test_image_autoencoder_with_other_decoder_heads_loads_into_a_video_one(tmp_path):
    image = create_model(
        "mae_hiera_tiny_224", input_size=(64, 64)
    )  # 16 decoder heads, the video's 8
    save_pretrained(image, tmp_path)
    video = create_model("mae_hiera_tiny_16x224", input_size=(16, 64, 64), pretrained=str(tmp_path))
    assert torch.equal(video.blocks[3].attn.qkv.weight, image.blocks[3].attn.qkv.weight)


def test_other_heads_of_the_encoder_are_refused(model, tmp_path):
    config = json.loads((save_pretrained(model, tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_heads": 2}))
    with pytest.raises(
        CheckpointError, match="was made with num_heads=2, the model has 1; make them equal"
    ):
        create_model(NAME, pretrained=str(tmp_path))


def test_round_trip_of_a_joint_position_embedding(tmp_path):
    saved = Hiera(replace(config_for(NAME), sep_pos_embed=False))
    again = from_pretrained(save_pretrained(saved, tmp_path))
    assert same(again, saved)


@pytest.mark.parametrize(
    "config", [{"num_heads": [1, 2, 4, 8], "embed_dim": 96}, {"stages": 3}, {"num_heads": 0}]
)
def test_a_config_of_another_library_is_rejected(tmp_path, config):
    save_file({"hiera.embeddings.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"config\.json was not written by this package, hiera-transformer"
    ):
        from_pretrained(tmp_path)


def test_values_that_are_not_finite_are_logged(model, tmp_path, caplog):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in (("blocks.0.norm1.bias", "nan"), ("norm.weight", "inf")):
        state[name][3] = float(value)
    torch.save(state, tmp_path / "x.pth")
    with caplog.at_level(logging.WARNING, logger="hiera_video"):
        load_pretrained(model, tmp_path / "x.pth")
    assert "x.pth: 2 tensors have values that are not finite, such as blocks.0" in caplog.text


def test_a_compressed_archive_is_refused_by_its_directory(tmp_path):
    """Issue I, 4.2: 26 MB took 6.7 GB."""
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    with pytest.raises(
        CheckpointError,
        match=r"bomb.pth: cannot be read \(ValueError: its members take 10000000 bytes",
    ):
        create_model("hiera_micro_16x32", pretrained=str(path))


def test_nested_json_beside_weights_is_one_line(model, tmp_path):
    """Issue I, 4.2."""
    save_pretrained(model, tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    words = r"config.json: is not valid JSON \(maximum recursion"
    with pytest.raises(CheckpointError, match=words):
        create_model("hiera_micro_16x32", pretrained=str(tmp_path))
