"""Arithmetic of soft targets, mixup and cutmix; a part of a batch can be mixed alone."""

from __future__ import annotations

import random

import torch

from hiera_video.data.transforms.mixup import cutmix_box, mix, soft_targets


def batch(size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    clips = torch.randn(size, 3, 2, 16, 20, generator=torch.Generator().manual_seed(0))
    return clips, soft_targets(torch.arange(size), 8, 0.1)


def test_soft_targets() -> None:
    targets = soft_targets(torch.tensor([1, 3]), 4, 0.1)
    expected = torch.tensor([[0.025, 0.925, 0.025, 0.025], [0.025, 0.025, 0.025, 0.925]])
    torch.testing.assert_close(targets, expected)
    several = soft_targets(torch.tensor([[1.0, 0, 1.0, 0]]), 4, 0.0)
    assert several.tolist() == [[1, 0, 1, 0]]


def test_mixup_blends_with_the_reversed_batch() -> None:
    clips, targets = batch()
    mixed, mixed_targets = mix(clips, targets, mixup=0.8, cutmix=0, generator=random.Random(3))
    share = random.Random(3).betavariate(0.8, 0.8)
    torch.testing.assert_close(mixed, share * clips + (1 - share) * clips.flip(0))
    torch.testing.assert_close(mixed_targets, share * targets + (1 - share) * targets.flip(0))


def test_cutmix_weighs_targets_by_area() -> None:
    clips, targets = batch()
    for seed in range(50):
        mixed, mixed_targets = mix(
            clips, targets, mixup=0, cutmix=1.0, generator=random.Random(seed)
        )
        foreign = mixed != clips
        assert torch.equal(mixed[foreign], clips.flip(0)[foreign])
        # one box for the batch and all frames
        assert torch.equal(foreign, foreign[:1, :1, :1].expand_as(foreign))
        share = 1 - foreign[0, 0, 0].float().mean()
        torch.testing.assert_close(mixed_targets, share * targets + (1 - share) * targets.flip(0))


def test_cutmix_box_touches_the_border_but_stays_inside() -> None:
    generator = random.Random(0)
    boxes = [cutmix_box(16, 20, share=0.5, generator=generator) for _ in range(300)]
    assert all(
        0 <= top <= bottom <= 16 and 0 <= left <= right <= 20 for top, bottom, left, right in boxes
    )
    assert any(top == 0 for top, *_ in boxes) and any(right == 20 for *_, right in boxes)
    # int(16 * sqrt(0.5)) = 11, in whole halves
    assert max(bottom - top for top, bottom, *_ in boxes) == 10


def test_off_changes_nothing_and_both_on_alternate() -> None:
    clips, targets = batch()
    same, same_targets = mix(clips, targets, mixup=0, cutmix=0, generator=random.Random(0))
    assert same is clips and same_targets is targets
    kinds = []
    for seed in range(200):
        mixed, _ = mix(clips, targets, mixup=0.8, cutmix=1.0, generator=random.Random(seed))
        kinds.append(bool((mixed == clips).any()))  # cutmix leaves pixels as they were, mixup none
    assert 70 < sum(kinds) < 130


def test_a_part_with_both_partners_mixes_like_the_whole_batch() -> None:
    clips, targets = batch(8)
    part = torch.tensor([2, 3, 4, 5])
    for seed in range(4):
        whole = mix(clips, targets, mixup=0.8, cutmix=1.0, generator=random.Random(seed))
        alone = mix(
            clips[part], targets[part], mixup=0.8, cutmix=1.0, generator=random.Random(seed)
        )
        assert torch.equal(whole[0][part], alone[0]) and torch.equal(whole[1][part], alone[1])
