from __future__ import annotations

import pytest
import torch

from hiera_video.errors import ConfigError
from hiera_video.models.factory import create_model
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.masking import choose_hidden_tokens, random_keep, running_cells
from hiera_video.models.registry import MaeConfig, config_for


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_each_clip_shows_the_same_number_of_units():
    keep = random_keep(200, 392, 0.9, seeded(0)[0])
    assert keep.dtype == torch.bool
    assert keep.sum(1).unique().tolist() == [39]
    assert keep.any(0).all()  # every unit is visible somewhere


def test_a_mask_depends_only_on_its_generator():
    together = random_keep(3, 32, 0.9, seeded(5, 6, 7))
    alone = random_keep(1, 32, 0.9, seeded(6))
    assert torch.equal(together[1:2], alone)


def test_tubes_hide_the_same_place_in_every_frame():
    keep = random_keep(8, 392, 0.9, seeded(0)[0], tube_frames=8).view(8, 8, 49)
    assert torch.equal(keep, keep[:, :1].expand_as(keep))
    assert keep[:, 0].sum(1).unique().tolist() == [5]  # VideoMAE hides int(0.9 * 49) = 44
    config = config_for("mae_hiera_micro_16x32", input_size=(16, 64, 64))
    model = MaskedAutoencoderHiera(
        config, MaeConfig(masking="tube", decoder_embed_dim=64, decoder_depth=1)
    )
    drawn = model.draw_keep(2).view(2, 8, 16)
    assert torch.equal(drawn, drawn[:, :1].expand_as(drawn))
    assert (
        model(torch.randn(2, 3, 16, 64, 64)).keep.sum(1).tolist() == [model.num_visible_units()] * 2
    )


def test_the_future_is_the_last_frames():
    config = config_for("mae_hiera_micro_16x32")
    mae = MaeConfig(masking="future", mask_ratio=0.375, decoder_embed_dim=64, decoder_depth=1)
    model = MaskedAutoencoderHiera(config, mae)
    keep = model.draw_keep(3, seeded(0, 1, 2)).view(3, 8, 4)
    assert keep[:, :5].all() and not keep[:, 5:].any()
    output = model(torch.randn(3, 3, 16, 32, 32))
    assert torch.equal(output.keep.view(3, 8, 4), keep)
    assert output.masked.view(3, 8, -1).sum(2).unique(dim=0).tolist() == [
        [0] * 5 + [output.masked[0].numel() // 8] * 3
    ]
    with pytest.raises(
        ConfigError,
        match=r"mask_ratio=0.9: keeps 0 of 8 units; choose a ratio between 0.125 and 0.875",
    ):
        MaskedAutoencoderHiera(config, MaeConfig(masking="future", mask_ratio=0.9))
    with pytest.raises(
        ConfigError, match=r"mae\.masking='future': an image has no time axis; use 'random'"
    ):
        MaskedAutoencoderHiera(
            config_for("mae_hiera_tiny_224"), MaeConfig(masking="future", mask_ratio=0.5)
        )


def test_wrong_arguments_are_rejected():
    with pytest.raises(
        ConfigError, match="2 generators for 3 clips: pass one per clip, or one for the batch"
    ):
        random_keep(3, 32, 0.9, seeded(0, 1))
    with pytest.raises(ConfigError, match="32 units cannot be split into tubes of 5 frames"):
        random_keep(3, 32, 0.9, tube_frames=5)
    with pytest.raises(ConfigError, match=r"mask_ratio=1.0: must be above 0 and below 1"):
        random_keep(3, 32, 1.0)


def test_running_cells_are_videomaes():
    """Issue I, weights 5: a queue of places that moves on a frame, from each of four phases."""
    config = config_for(
        "mae_hiera_micro_16x32", input_size=(10, 16, 16)
    )  # one unit a frame, 2x2 tokens each
    unit_tokens = torch.arange(20).view(5, 4)
    found = running_cells(config, unit_tokens, 0.5) - unit_tokens[:, :1]
    queue = [[1, 2], [0, 1], [0, 3], [2, 3]] * 3
    assert found.tolist() == [queue[phase : phase + 5] for phase in range(4)]
    one_of_four = running_cells(config, unit_tokens, 0.25) - unit_tokens[:, :1]
    assert one_of_four[:, 0].tolist() == [[2], [1], [0], [3]]
    wide = config_for(
        "mae_hiera_micro_16x32", input_size=(4, 16, 32)
    )  # both units of a frame move together
    unit_tokens = torch.arange(16).view(4, 4)
    found = running_cells(wide, unit_tokens, 0.5)[0] - unit_tokens[:, :1]
    assert found.tolist() == [[1, 2], [1, 2], [0, 1], [0, 1]]
    with pytest.raises(
        ConfigError, match="each unit has a single token left; use 'random' or 'all'"
    ):
        running_cells(config, unit_tokens[:, :1], 0.5)


def test_each_clip_has_its_phase_so_that_all_places_are_decoded():
    model = create_model(
        "mae_hiera_micro_16x32",
        mae=MaeConfig(decoder_tokens="running_cell", decoder_embed_dim=64, decoder_depth=1),
    )
    draws = torch.tensor([0.0, 0.25, 0.5, 0.999]).view(4, 1).expand(4, 128)
    clips, keep = torch.randn(4, 3, 16, 32, 32), torch.zeros(4, 32, dtype=torch.bool)
    keep[:, 0] = True
    with torch.no_grad():
        masked = model(clips, keep=keep, decoder_draws=draws).masked
    assert masked.sum(1).tolist() == [31 * 2] * 4
    hidden = torch.ones(128, dtype=torch.bool)
    hidden[model.unit_tokens[0]] = False
    assert masked.sum(0).tolist() == (hidden * 2).tolist()


def test_choose_hidden_tokens():
    masked = torch.tensor([[True, False, True, True], [False, True, True, True]])
    draws = torch.tensor([[0.9, 0.0, 0.1, 0.2], [0.0, 0.3, 0.2, 0.1]])
    assert choose_hidden_tokens(masked, 2, draws).tolist() == [[2, 3], [2, 3]]
