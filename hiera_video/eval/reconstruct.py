"""Evaluator of masked pre-training: the loss on held-out clips, and a probe of the features."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from hiera_video.data.dataset import TestViews, VideoViews
from hiera_video.data.loading.loader import test_loader
from hiera_video.errors import ManifestError
from hiera_video.eval.feature_probe import clip_features, leave_one_out_top1
from hiera_video.models.mae import MaeOutput, MaskedAutoencoderHiera
from hiera_video.runtime.device_feed import DeviceFeed
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
    labels: Mapping[int, int] = field(default_factory=dict)
    """Row → label of the videos whose features are probed."""
    score: str = "loss"
    higher_is_better: bool = False

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Evaluate a masked autoencoder.

        Returns:
            The mean `loss` and the number of videos `evaluated`, over all ranks; with `labels`,
            `probe_top1`, the accuracy in percent of a ridge regression on the encoder's features
            of whole clips, each video by all others.

        Raises:
            ManifestError: No video can be read.
        """
        assert isinstance(model, MaskedAutoencoderHiera)
        model.eval()
        total, count = torch.zeros((), dtype=torch.float64, device=self.world.device), 0
        features: list[Tensor] = []
        rows: list[int] = []
        feed = DeviceFeed(self._batches(model), self.world.device, HeldOutBatch.parts)
        with closing(feed):
            for ((batch, transfer),) in feed:
                clips, keep, draws = transfer()
                output = _reconstruct(model, clips, keep, draws)
                if self.pictures and self.world.is_main and count == 0:
                    self._draw(self.pictures, model, clips[:MAX_PICTURES], batch)
                if probed := [place for place, row in enumerate(batch.rows) if row in self.labels]:
                    features.append(clip_features(model, clips[probed]))
                    rows += [batch.rows[place] for place in probed]
                # read once, at the end: reading waits for the device
                total += output.loss.double() * len(batch.clips)
                count += len(batch.clips)
        local = torch.stack([total, torch.full_like(total, count)])
        total_loss, evaluated = self.world.all_reduce(local).tolist()
        if not evaluated:
            raise ManifestError("none of the validation videos can be read; check data.val")
        numbers = {
            "loss": total_loss / evaluated,
            "evaluated": evaluated,
            "of": len(self.dataset),
        }
        return numbers | (self._probe(features, rows) if self.labels else {})

    def _probe(self, features: list[Tensor], rows: list[int]) -> dict[str, float]:
        """Return `probe_top1` of the features of all ranks; nothing if a single class is left."""
        local = torch.cat(features).cpu() if features else None
        gathered = self.world.all_gather((local, [self.labels[row] for row in rows]))
        labels = torch.tensor([label for _, known in gathered for label in known])
        if len(set(labels.tolist())) < 2:
            return {}
        joined = torch.cat([part for part, _ in gathered if part is not None])
        return {"probe_top1": leave_one_out_top1(joined, labels)}

    def _batches(self, model: MaskedAutoencoderHiera) -> Iterator[list[HeldOutBatch]]:
        """Yield this rank's batches of clips with their masks."""
        rows = list(range(len(self.dataset)))[self.world.rank :: self.world.size]
        loader = test_loader(self.dataset, workers=self.workers, rows=rows)
        videos = (item for item in loader if isinstance(item, VideoViews))
        while group := list(islice(videos, self.batch_size)):
            yield [HeldOutBatch.of(group, model)]

    def _draw(
        self, folder: Path, model: MaskedAutoencoderHiera, clips: Tensor, batch: HeldOutBatch
    ) -> None:
        keep, draws = (part[: len(clips)].to(clips.device) for part in (batch.keep, batch.draws))
        pictures = model.pictures(clips, _reconstruct(model, clips, keep, draws))
        folder.mkdir(parents=True, exist_ok=True)
        sheet = reconstruction_sheet(pictures, mean=self.mean, std=self.std)
        write_atomic(folder / "latest.png", sheet)


@dataclass(frozen=True, eq=False)
class HeldOutBatch:
    """Clips with masks that depend on the rows of their videos alone."""

    rows: list[int]
    clips: list[Tensor]
    keep: Tensor
    """Visible mask units, bool [B, units]."""
    draws: Tensor
    """Random numbers of a decoder that gets some of the tokens, float32 [B, units]."""

    @classmethod
    def of(cls, videos: Sequence[VideoViews], model: MaskedAutoencoderHiera) -> HeldOutBatch:
        """Take the first view of each video and draw its mask."""
        generators = [
            torch.Generator().manual_seed(random.Random(f"held-out/{video.row}").getrandbits(63))
            for video in videos
        ]
        keep = model.draw_keep(len(videos), generators)
        units = model.unit_tokens.numel()
        draws = torch.stack([torch.rand(units, generator=generator) for generator in generators])
        clips = [next(iter(video.crops)) for video in videos]
        return cls([video.row for video in videos], clips, keep, draws)

    def parts(self) -> list[Tensor | list[Tensor]]:
        """Return what the device gets."""
        return [self.clips, self.keep, self.draws]


def _reconstruct(
    model: MaskedAutoencoderHiera, clips: Tensor, keep: Tensor, draws: Tensor
) -> MaeOutput:
    visible = model.num_visible_units()
    output: MaeOutput = model(clips, keep=keep, decoder_draws=draws, visible=visible)
    return output
