from __future__ import annotations

import math

import pytest
import torch

from hiera_video.errors import ConfigError
from hiera_video.models.registry import MaeConfig, config_for
from hiera_video.models.targets import MaeTarget, hog

VIDEO = config_for("mae_hiera_base_16x224", input_size=(4, 32, 64))
IMAGE = config_for("mae_hiera_base_224", input_size=(32, 32))


def test_video_target_is_the_first_frame_of_each_token():
    clips = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 3, 4, 32, 64)
    patches = MaeTarget(VIDEO, MaeConfig()).patches(clips)
    assert patches.shape == (1, 2 * 2 * 4, 768)
    assert patches[0, :, 0].tolist() == [0.0] * 8 + [2.0] * 8


def test_all_frames_of_a_token():
    clips = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 3, 4, 32, 64)
    patches = MaeTarget(VIDEO, MaeConfig(target_frames="all")).patches(clips)
    assert patches.shape == (1, 16, 1536)
    assert patches[0, 0, :768].unique().tolist() == [0.0]
    assert patches[0, 15, 768:].unique().tolist() == [3.0]


def test_order_inside_a_vector():
    clips = torch.zeros(1, 3, 4, 32, 64)
    clips[0, 2, 0, 1, 16 + 5] = 1.0  # blue, row 1, column 5 of the second token
    assert MaeTarget(VIDEO, MaeConfig()).patches(clips)[0, 1].argmax() == (1 * 16 + 5) * 3 + 2
    assert (
        MaeTarget(IMAGE, MaeConfig()).patches(clips[:, :, 0, :, :32])[0, 1].argmax()
        == 2 * 256 + 1 * 16 + 5
    )


def test_each_patch_is_normalised_by_itself():
    target = MaeTarget(VIDEO, MaeConfig())
    patches = target.normalise(target.patches(torch.rand(2, 3, 4, 32, 64) * 7 + 3))
    assert patches.mean(-1).abs().max() < 1e-4
    assert patches.var(-1).sub(1).abs().max() < 1e-3


def test_the_variance_floor_shrinks_flat_patches():
    patches = torch.tensor([[-1.0, 1.0], [-0.001, 0.001]])  # variances 2 and 2e-6
    paper = MaeTarget(VIDEO, MaeConfig()).normalise(patches)
    assert paper[:, 1].tolist() == pytest.approx([0.7071066, 0.5773503], abs=1e-6)
    floor = MaeTarget(VIDEO, MaeConfig(variance_floor=2.0)).normalise(patches)
    assert floor[:, 1].tolist() == pytest.approx([0.5, 0.0007071064], abs=1e-7)


def test_pictures_of_a_perfect_prediction_are_the_clip():
    for config, shape in ((VIDEO, (2, 3, 4, 32, 64)), (IMAGE, (2, 3, 32, 32))):
        target, clips = MaeTarget(config, MaeConfig(variance_floor=0.01)), torch.rand(shape)
        masked = torch.rand(2, math.prod(config.final_grid)) < 0.5
        perfect = target.normalise(target.patches(clips))
        original, visible, filled = target.pictures(clips, perfect, masked)
        frames = clips[:, :, ::2] if clips.ndim == 5 else clips
        assert torch.equal(original, frames)
        assert torch.allclose(filled, frames, atol=1e-5)
        assert (visible == 0).float().mean() == pytest.approx(
            float(masked.float().mean()), abs=1e-3
        )


def test_hog_bins_follow_the_orientation():
    """Issue I, weights 5: PySlowFast's bins start at a gradient along y."""
    ramp = torch.arange(32.0)
    rising = torch.stack([ramp.expand(32, 32), ramp.view(-1, 1).expand(32, 32)]).unsqueeze(
        0
    )  # along x, along y
    histograms = hog(rising).view(2, 9, 4, 4)
    for channel, bin_ in ((0, 4), (1, 0)):  # the cells at the border too
        assert torch.equal(histograms[channel], torch.eye(9)[bin_].view(9, 1, 1).expand(9, 4, 4))
    assert torch.equal(hog(rising), hog(-rising))  # orientations are unsigned


def test_hog_sums_sobel_gradients_in_pyslowfasts_bins():
    """Issue I, weights 5."""
    image = torch.rand(24, 24, generator=torch.Generator().manual_seed(0))
    votes = [0.0] * 9
    for row in range(8, 16):
        for column in range(8, 16):
            square = image[row - 1 : row + 2, column - 1 : column + 2].double()
            weights = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
            across = float(weights @ (square[:, 0] - square[:, 2]))
            down = float((square[0] - square[2]) @ weights)
            bin_ = math.floor(math.atan2(across, down) / math.pi * 9) % 9
            votes[bin_] += math.hypot(across, down)
    expected = torch.tensor(votes) / math.hypot(*votes)
    assert torch.allclose(hog(image[None, None])[0, :, 1, 1], expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["pixels", "hog"])
def test_targets_are_float32_under_autocast(kind, dtype):
    target, clip = MaeTarget(VIDEO, MaeConfig(target=kind)), torch.rand(1, 3, *VIDEO.input_size)
    with torch.autocast("cpu", dtype):
        found = target.normalise(target.patches(clip))
    assert found.dtype == torch.float32
    assert torch.equal(found, target.normalise(target.patches(clip)))


def test_hog_of_a_clip_is_that_of_its_frames():
    clip = torch.rand(2, 3, 4, 16, 24)
    for frame in range(4):
        assert torch.equal(hog(clip)[:, :, frame], hog(clip[:, :, frame]))


def test_histogram_targets():
    target = MaeTarget(VIDEO, MaeConfig(target="hog"))
    patches = target.patches(torch.rand(1, 3, 4, 32, 64))
    assert patches.shape == (1, 16, 2 * 2 * 9 * 3)
    clip = torch.rand(1, 3, 4, 32, 64)
    cells = hog(clip[:, :, 0])[0, :, 2:4, 4:6]  # row 1, column 2 of the grid of 2x4 tokens
    assert torch.equal(target.patches(clip)[0, 6], cells.flatten())  # channel, bin, row, column
    assert MaeTarget(VIDEO, MaeConfig(target="hog", target_frames="all")).size == 2 * 108
    assert torch.equal(target.normalise(patches), patches)
    with pytest.raises(ConfigError, match="only 'pixels' can be shown as pictures"):
        target.pictures(torch.rand(1, 3, 4, 32, 64), patches, torch.ones(1, 16, dtype=torch.bool))
    small = config_for("hiera_base_224", input_size=(32, 32))
    object.__setattr__(small, "q_pool", 0)  # tokens of 4x4 pixels
    with pytest.raises(
        ConfigError, match="tokens of 4x4 pixels are not a multiple of the 8x8 cells; use 'pixels'"
    ):
        MaeTarget(small, MaeConfig(target="hog"))
