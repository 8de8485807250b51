"""Evaluator of masked pre-training: the loss on held-out clips with fixed masks."""

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

MAX_PICTURES = 6
"""Clips of the picture of reconstructions."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Mean loss over the first clip of each video; the best checkpoint has the lowest.

    The mask of a video depends on its row alone, so losses of different steps are comparable.
    """

    dataset: TestViews
    batch_size: int
    """Clips in a batch."""
    workers: int
    """Processes that decode videos."""
    world: World
    mean: tuple[float, float, float]
    """Mean and standard deviation that normalised the pixels; only the picture uses them."""
    std: tuple[float, float, float]
    pictures: Path | None
    """Folder for `latest.png`: original, visible and reconstructed frames of some clips."""
    score: str = "loss"
    higher_is_better: bool = False

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Evaluate a masked autoencoder.

        Returns:
            The mean `loss` and the number of videos `evaluated`, over all ranks.

        Raises:
            ManifestError: No video can be read.
        """
        assert isinstance(model, MaskedAutoencoderHiera)
        model.eval()
        device = self.world.device
        rows = list(range(len(self.dataset)))[self.world.rank :: self.world.size]
        loader = test_loader(self.dataset, workers=self.workers, rows=rows)
        videos = (item for item in loader if isinstance(item, VideoViews))
        total, count = 0.0, 0
        while batch := list(islice(videos, self.batch_size)):
            clips = torch.stack([next(iter(video.crops)) for video in batch]).to(device)
            batch_rows = [video.row for video in batch]
            output = _reconstruct(model, clips, batch_rows)
            if self.pictures and self.world.is_main and count == 0:
                self._draw(self.pictures, model, clips[:MAX_PICTURES], batch_rows[:MAX_PICTURES])
            total, count = total + float(output.loss) * len(clips), count + len(clips)
        local = torch.tensor([total, count], dtype=torch.float64, device=device)
        total_loss, evaluated = self.world.all_reduce(local).tolist()
        if not evaluated:
            raise ManifestError("none of the validation videos can be read; check data.val")
        return {"loss": total_loss / evaluated, "evaluated": evaluated}

    def _draw(
        self, folder: Path, model: MaskedAutoencoderHiera, clips: Tensor, rows: list[int]
    ) -> None:
        pictures = model.pictures(clips, _reconstruct(model, clips, rows))
        folder.mkdir(parents=True, exist_ok=True)
        sheet = reconstruction_sheet(pictures, mean=self.mean, std=self.std)
        write_atomic(folder / "latest.png", sheet)


def _reconstruct(model: MaskedAutoencoderHiera, clips: Tensor, rows: list[int]) -> MaeOutput:
    generators = [
        torch.Generator().manual_seed(random.Random(f"held-out/{row}").getrandbits(63))
        for row in rows
    ]
    keep = model.draw_keep(len(clips), generators).to(clips.device)
    units = model.unit_tokens.numel()
    draws = torch.stack([torch.rand(units, generator=generator) for generator in generators])
    output: MaeOutput = model(clips, keep=keep, decoder_draws=draws.to(clips.device))
    return output
