"""Parameter groups: every parameter once, with its weight decay and learning-rate scale."""

from __future__ import annotations

import torch

from hiera_video.models.factory import create_model
from hiera_video.train.config import OptimConfig
from hiera_video.train.optim import make_optimizer, parameter_groups, set_lr


def test_each_parameter_has_the_decay_and_scale_of_its_layer() -> None:
    with torch.device("meta"):
        model = create_model("hiera_base_16x224", num_classes=10)
    groups = parameter_groups(model, OptimConfig(weight_decay=0.05, layer_decay=0.5))
    found = {name: group for group in groups for name in group["names"]}
    assert (
        sum(len(group["names"]) for group in groups) == len(found) == len(list(model.parameters()))
    )
    depth = 24
    expected = {  # name: (decay, layer); 26 layers, the last (head) at full rate
        "pos_embed_spatial": (0.0, 0),
        "pos_embed_temporal": (0.0, 0),
        "patch_embed.proj.weight": (0.05, 0),
        "patch_embed.proj.bias": (0.0, 0),
        "blocks.0.attn.qkv.weight": (0.05, 1),
        "blocks.0.norm1.weight": (0.0, 1),
        "blocks.23.mlp.fc2.bias": (0.0, depth),
        "blocks.23.mlp.fc2.weight": (0.05, depth),
        "norm.weight": (0.0, depth + 1),
        "head.projection.weight": (0.05, depth + 1),
        "head.projection.bias": (0.0, depth + 1),
    }
    for name, (decay, layer) in expected.items():
        group, scale = found[name], 0.5 ** (depth + 1 - layer)
        assert (group["weight_decay"], group["lr_scale"]) == (decay, scale), name


def test_set_lr_scales_the_learning_rate_of_each_group() -> None:
    model = create_model("hiera_micro_16x32", num_classes=3)
    for name, kind in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        optimizer = make_optimizer(model, OptimConfig(name=name, layer_decay=0.5))  # type: ignore[arg-type]
        assert isinstance(optimizer, kind)
        set_lr(optimizer, 0.1)
        assert max(group["lr"] for group in optimizer.param_groups) == 0.1
        assert min(group["lr"] for group in optimizer.param_groups) == 0.1 * 0.5**5  # 4 blocks
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)
    plain = make_optimizer(model, OptimConfig(name="sgd", momentum=0.0))
    # torch refuses Nesterov momentum of 0
    assert not any(group["nesterov"] for group in plain.param_groups)
