"""Compare the masked autoencoder's gradients with hiera-transformer's at full sizes.

    python benchmarks/mae_gradients.py            # some minutes, 10 GB

Same redrawn weights, same mask, the paper's mask ratio and decoder. Reports ‖Δg‖ / ‖g‖ of every
parameter in float64, because in float32 a tie in a max-pooling may be decided differently.
"""

from __future__ import annotations

import json
import sys
import warnings

import torch
from record import record
from torch import nn

from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import config_for, default_mae

CASES = [
    ("mae_hiera_base_16x224", (16, 96, 96)),
    ("mae_hiera_large_16x224", (16, 96, 96)),
    ("mae_hiera_base_16x224", (16, 224, 224)),
    ("mae_hiera_base_224", (224, 224)),
]
SHARED = (
    *("input_size", "in_chans", "embed_dim", "num_heads", "stages", "mlp_ratio", "sep_pos_embed"),
    *("q_pool", "q_stride", "mask_unit_size", "patch_kernel", "patch_stride", "patch_padding"),
)


def worst_gradient(name: str, size: tuple[int, ...]) -> tuple[float, str]:
    """Return the largest ‖Δg‖ / ‖g‖ and the name of its parameter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns about timm
        from hiera.hiera_mae import MaskedAutoencoderHiera as Reference
    config, mae = config_for(name, input_size=size), default_mae(name)
    arguments = {key: getattr(config, key) for key in SHARED}
    decoder = {
        key: getattr(mae, key)
        for key in ("decoder_embed_dim", "decoder_depth", "decoder_num_heads")
    }
    reference, ours = Reference(**arguments, **decoder), MaskedAutoencoderHiera(config, mae)
    torch.manual_seed(0)
    for parameter in reference.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.05)
    reference = reference.double()
    ours = ours.double()
    ours.load_state_dict(reference.state_dict())
    clips = torch.randn(1, config.in_chans, *size, dtype=torch.float64)
    keep = ours.draw_keep(1)
    ours(clips, keep=keep).loss.backward()
    reference(clips, mask=keep)[0].backward()
    theirs = {key: parameter.grad for key, parameter in reference.named_parameters()}
    return max(
        ((parameter.grad - theirs[key]).norm().item() / theirs[key].norm().item(), key)
        for key, parameter in ours.named_parameters()
        if parameter.grad is not None
    )


def main() -> None:
    rows = []
    for name, size in CASES:
        difference, parameter = worst_gradient(name, size)
        rows.append(
            {
                "model": name,
                "input_size": size,
                "worst_relative_difference": difference,
                "parameter": parameter,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "what": "largest ‖Δg‖/‖g‖ of a parameter against hiera-transformer 0.1.4, float64",
        "rows": rows,
    }
    print(record("mae_gradients", {**result, "command": " ".join(["python", *sys.argv])}))


if __name__ == "__main__":
    main()
