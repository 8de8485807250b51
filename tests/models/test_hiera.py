from __future__ import annotations

import pytest
import torch

from hiera_video.errors import ConfigError, InputSizeError
from hiera_video.models.factory import create_model


@pytest.fixture
def clips():
    return torch.randn(4, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "size", [(8, 224, 224), (32, 224, 224), (16, 256, 256), (16, 288, 288), (16, 224, 288)]
)
def test_other_lengths_and_sizes(size):
    with torch.device("meta"):
        model = create_model("hiera_tiny_16x224", num_classes=7, input_size=size)
        clips = torch.empty(2, 3, *size)
    assert model(clips).shape == (2, 7)
    assert model.forward_features(clips).shape == (
        2,
        size[0] // 2,
        size[1] // 32,
        size[2] // 32,
        768,
    )


def test_logits_in_training_and_evaluation(clips):
    model = create_model("hiera_micro_16x32", num_classes=5)
    trained, evaluated = model.train()(clips), model.eval()(clips)
    assert torch.equal(trained, evaluated)
    assert not torch.allclose(evaluated.sum(1), torch.ones(4))


def test_forward_features_returns_the_last_map(clips):
    model = create_model("hiera_micro_16x32").eval()
    with torch.no_grad():
        maps, features = model.forward_intermediates(clips), model.forward_features(clips)
        pooled = model.head(model.norm(features.mean(dim=(1, 2, 3))))
        assert [tuple(map_.shape) for map_ in maps] == [
            (4, 8, 8, 8, 64),
            (4, 8, 4, 4, 128),
            (4, 8, 2, 2, 256),
        ]
        assert torch.equal(maps[-1], features)
        assert torch.allclose(pooled, model(clips), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        (
            (1, 3, 16, 64, 64),
            torch.float32,
            r"clips are \[1, 3, 16, 64, 64\]; this model takes \[B, 3, 16, 32, 32\]",
        ),
        ((3, 16, 32, 32), torch.float32, r"create the model with their input_size"),
        (
            (1, 3, 16, 32, 32),
            torch.uint8,
            "clips are torch.uint8; the model takes normalised floats",
        ),
    ],
)
def test_wrong_clips_are_rejected(shape, dtype, words):
    model = create_model("hiera_micro_16x32")
    with pytest.raises(InputSizeError, match=words):
        model(torch.zeros(shape, dtype=dtype))


def test_checkpointing_gives_the_same_gradients(clips):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = create_model("hiera_micro_16x32", checkpointing=checkpointing, drop_path_rate=0.3)
        draws = torch.rand(4, 4, 2, generator=torch.Generator().manual_seed(1))
        model(clips, path_draws=draws).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_layer_ids_cover_every_parameter():
    with torch.device("meta"):
        model = create_model("hiera_base_16x224")
    levels = {name: model.layer_id(name) for name, _ in model.named_parameters()}
    assert model.num_layers == 25
    assert {
        levels[name]
        for name in ("pos_embed_spatial", "pos_embed_temporal", "patch_embed.proj.weight")
    } == {0}
    assert levels["blocks.0.norm1.weight"] == 1
    assert levels["blocks.23.mlp.fc2.bias"] == 24
    assert {levels[name] for name in ("norm.weight", "head.projection.bias")} == {25}
    assert set(levels.values()) == set(range(26))
    with pytest.raises(
        ConfigError, match=r"'blocks.99.norm1.weight' is not a parameter of this model"
    ):
        model.layer_id("blocks.99.norm1.weight")


def test_no_weight_decay_names_exist():
    for name, expected in [
        ("hiera_micro_16x32", {"pos_embed_spatial", "pos_embed_temporal"}),
        ("hiera_tiny_224", {"pos_embed"}),
        (
            "mae_hiera_micro_16x32",
            {"pos_embed_spatial", "pos_embed_temporal", "decoder_pos_embed", "mask_token"},
        ),
    ]:
        with torch.device("meta"):
            model = create_model(name)
        assert model.no_weight_decay() == expected
        assert expected <= {name for name, _ in model.named_parameters()}


def test_reset_classifier(clips):
    model = create_model("hiera_micro_16x32", num_classes=5)
    model.reset_classifier(11)
    assert model(clips).shape == (4, 11)
    assert model.config.num_classes == 11
    dropping = create_model("hiera_micro_16x32", head_dropout=0.5).eval()
    dropping.reset_classifier(11)
    assert torch.equal(dropping(clips), dropping(clips))  # the new head is in evaluation mode too


def test_no_classes_give_pooled_features(clips):
    model = create_model("hiera_micro_16x32", num_classes=5).eval()
    bare = create_model("hiera_micro_16x32", num_classes=0).eval()
    bare.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    )
    with torch.no_grad():
        logits, pooled = model(clips), bare(clips)
        assert pooled.shape == (4, model.num_features) == (4, 256)
        assert torch.equal(model.get_classifier()(pooled), logits)
        features = model.forward_features(clips)  # in spatial order, summed in another order
        assert torch.allclose(model.forward_head(features), logits, atol=1e-6)
        assert torch.allclose(model.forward_head(features, pre_logits=True), pooled, atol=1e-5)
        assert torch.allclose(pooled, model.norm(features.mean(dim=(1, 2, 3))), atol=1e-5)
        model.reset_classifier(0)
        assert torch.equal(model(clips), pooled)
        assert (model.config.num_classes, list(model.head.parameters())) == (0, [])
        model.reset_classifier(3)
        assert model(clips).shape == (4, 3)


def test_path_draws_apply_per_sample(clips):
    model = create_model("hiera_micro_16x32", drop_path_rate=0.5).train()
    draws = torch.rand(4, 4, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(clips, path_draws=draws)
        parts = torch.cat([model(clips[i : i + 2], path_draws=draws[i : i + 2]) for i in (0, 2)])
        undropped = model(clips, path_draws=torch.ones(4, 4, 2))
    assert torch.allclose(whole, parts, atol=1e-5)
    assert not torch.allclose(whole, undropped, atol=1e-3)
    with pytest.raises(
        InputSizeError,
        match=r"path_draws is \[4, 4\]; expected \[4, 4, 2\]: clips x blocks x 2",
    ):
        model(clips, path_draws=draws[..., 0])


def test_branch_scales(clips):
    model = create_model("hiera_micro_16x32", drop_path_rate=0.9).train()
    draws = torch.ones(4, 4, 2)
    draws[0, 3] = 0.0  # both branches of the last block of the first clip
    scales = model._branch_scales(clips, draws)
    assert scales[0, 3].tolist() == [0.0, 0.0]
    assert scales[1, :, 0].tolist() == pytest.approx([1.0, 1 / 0.7, 1 / 0.4, 10.0])
    assert model.eval()._branch_scales(clips, draws) is None


@torch.no_grad()
def test_initial_weights():
    torch.manual_seed(0)
    model = create_model("hiera_tiny_224")
    assert model.blocks[3].mlp.fc1.weight.std() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[3].mlp.fc1.bias.unique().tolist() == pytest.approx([0.02])
    assert model.head.projection.weight.std() == pytest.approx(0.02e-3, rel=0.05)
    assert model.head.projection.bias.unique().tolist() == pytest.approx([0.02e-3])
    micro = create_model("hiera_micro_16x32")
    assert micro.blocks[3].mlp.fc1.bias.abs().max() == 0
    assert micro.blocks[3].mlp.fc1.weight.abs().max() <= (6 / (256 + 1024)) ** 0.5
    patches = micro.patch_embed.proj.weight  # as a linear layer on flattened patches
    assert patches.std() == pytest.approx(
        (2 / (len(patches) + patches[0].numel())) ** 0.5, rel=0.05
    )
