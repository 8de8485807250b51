"""The evaluator of masked pre-training: loss on held-out clips with masks that never change, and pictures of it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from hiera_video.data.dataset import TestViews, VideoViews
from hiera_video.data.loading.loader import test_loader
from hiera_video.errors import ManifestError
from hiera_video.models.mae import MaeOutput, MaskedAutoencoderHiera
from hiera_video.runtime.distributed import World
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.viz.reconstructions import reconstruction_sheet

CLIPS_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Mean loss over the clips of `dataset`, one mask a video from its row; best is lowest.

    With `pictures` set, `<pictures>/latest.png` shows original, visible and reconstructed frames of some clips.
    """

    dataset: TestViews
    batch_size: int
    workers: int
    world: World
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pictures: Path | None
    score: str = "loss"
    higher_is_better: bool = False

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Evaluate. Raises `ManifestError` where no video can be read."""
        assert isinstance(model, MaskedAutoencoderHiera)
        model.eval()
        rows = list(range(len(self.dataset)))[self.world.rank :: self.world.size]
        videos = (
            item
            for item in test_loader(self.dataset, workers=self.workers, rows=rows)
            if isinstance(item, VideoViews)
        )
        total, count = 0.0, 0
        while batch := list(islice(videos, self.batch_size)):
            clips = torch.stack([next(iter(video.crops)) for video in batch]).to(self.world.device)
            output = _reconstruct(model, clips, [video.row for video in batch])
            if self.pictures and self.world.is_main and count == 0:
                self._draw(
                    self.pictures,
                    model,
                    clips[:CLIPS_SHOWN],
                    [video.row for video in batch[:CLIPS_SHOWN]],
                )
            total, count = total + float(output.loss) * len(clips), count + len(clips)
        summed = self.world.all_reduce(
            torch.tensor([total, count], dtype=torch.float64, device=self.world.device)
        ).tolist()
        if not summed[1]:
            raise ManifestError("none of the validation videos can be read; check data.val")
        return {"loss": summed[0] / summed[1], "evaluated": summed[1]}

    def _draw(
        self, folder: Path, model: MaskedAutoencoderHiera, clips: Tensor, rows: list[int]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = model.pictures(clips, _reconstruct(model, clips, rows))
        write_atomic(
            folder / "latest.png", reconstruction_sheet(pictures, mean=self.mean, std=self.std)
        )


def _reconstruct(model: MaskedAutoencoderHiera, clips: Tensor, rows: list[int]) -> MaeOutput:
    """A video's mask is a function of its row alone, so that losses of different steps can be compared."""
    generators = [
        torch.Generator().manual_seed(random.Random(f"held-out/{row}").getrandbits(63))
        for row in rows
    ]
    keep = model.draw_keep(len(clips), generators).to(clips.device)
    draws = torch.stack(
        [torch.rand(model.unit_tokens.numel(), generator=one) for one in generators]
    )
    output: MaeOutput = model(clips, keep=keep, decoder_draws=draws.to(clips.device))
    return output
