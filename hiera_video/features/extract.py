"""Compute features of clips in batches of one fixed shape."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from hiera_video.errors import ConfigError, FeatureError
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.store import DTYPES
from hiera_video.models.compiled import compile_blocks
from hiera_video.models.hiera import HieraEncoder
from hiera_video.runtime.device_feed import (
    DeviceLink,
    HostCopy,
    StagingBuffer,
    StagingRing,
    device_link,
)
from hiera_video.runtime.precision import autocast


class ClipEncoder:
    """Maps clips [B, 3, T, S, S] to features `stage<n>`: [B, …], pooled and stored as configured.

    Args:
        model: The encoder; set to eval mode and moved to `device`.
        config: Stages, pooling, dtype and precision.
        device: Where the model runs.

    Raises:
        ConfigError: The model does not have all of `features.stages`.
    """

    def __init__(self, model: HieraEncoder, config: FeaturesConfig, device: torch.device) -> None:
        self.model = model.eval().to(device)
        if config.compile:
            compile_blocks(model, reproducible=True)
        self.device = device
        self.pooling = config.pooling
        self.dtype = DTYPES[config.dtype]
        self.precision = config.precision
        count = len(model.stages)
        self.stages = tuple(sorted(config.stages)) if config.stages else (count,)
        if self.stages[-1] > count:
            raise ConfigError(
                f"features.stages={list(self.stages)}: this model has stages 1 to {count}"
            )

    @property
    def names(self) -> dict[str, list[int]]:
        """Shape of one clip's feature, by name."""
        shapes = {}
        for stage in self.stages:
            layout = self.model.stages[stage - 1]
            kept = {"mean": 0, "max": 0, "temporal": 1, "none": len(layout.grid)}[self.pooling]
            shapes[f"stage{stage}"] = [*layout.grid[:kept], layout.dim]
        return shapes

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> dict[str, Tensor]:
        with autocast(self.precision, self.device):
            outputs = self.model.encode(clips)
        return {f"stage{stage}": self._pool(outputs[stage - 1], stage) for stage in self.stages}

    def _pool(self, tokens: Tensor, stage: int) -> Tensor:
        """Pool the tokens of one stage, [B, units, tokens of a unit, C] in unit order."""
        if self.pooling == "mean":
            pooled = tokens.float().mean(dim=(1, 2))
        elif self.pooling == "max":
            pooled = tokens.amax(dim=(1, 2))
        else:
            pooled = self.model.order.reroll(tokens, self.model.stages[stage - 1].poolings)
            if self.pooling == "temporal":
                pooled = pooled.float().mean(dim=(2, 3))
        return pooled.to(self.dtype)


class BatchRunner:
    """Takes clips one by one and computes them in batches of one shape; the last one is padded.

    On a GPU, clips are copied to it as in a device feed, and the results of a batch are copied back
    as soon as they are computed and read while the next batch is.

    Args:
        encoder: Computes the features.
        batch_size: Clips in a batch.
        clip_shape: Shape of a clip.
        link: As in `DeviceFeed`; for tests.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        batch_size: int,
        clip_shape: tuple[int, ...],
        *,
        link: DeviceLink | None = None,
    ) -> None:
        self.encoder = encoder
        self._link = link or device_link(encoder.device)
        self._ring = StagingRing(self._link)
        self._shape = (batch_size, *clip_shape)
        self._batch: StagingBuffer | None = None
        self._filled = 0
        self._running: tuple[dict[str, HostCopy], int] | None = None
        self._done: dict[str, list[Tensor]] = {name: [] for name in encoder.names}

    def add(self, clip: Tensor) -> None:
        """Add a clip, float32 [3, T, S, S]; launch a batch if it is full."""
        if self._batch is None:
            self._batch = self._ring.open([(self._shape, torch.float32)])
        place = self._batch.tensors[0][self._filled]
        self._batch.write(partial(place.copy_, clip), self._link)
        self._filled += 1
        if self._filled == len(self._batch.tensors[0]):
            self._launch(self._batch)

    def finish(self) -> dict[str, Tensor]:
        """Return the features of all clips since the last `finish`, in order, on the CPU."""
        if self._batch is not None:
            self._batch.tensors[0][self._filled :] = 0
            self._launch(self._batch)
        self._collect()
        features = {
            name: torch.cat(parts)
            if parts
            else torch.empty(0, *self.encoder.names[name], dtype=self.encoder.dtype)
            for name, parts in self._done.items()
        }
        self._done = {name: [] for name in features}
        return features

    def _launch(self, batch: StagingBuffer) -> None:
        (clips,) = self._ring.send(batch)
        outputs = {name: self._link.fetch(value) for name, value in self.encoder(clips).items()}
        self._collect()  # the batch before, while the device computes this one
        self._running, self._batch, self._filled = (outputs, self._filled), None, 0

    def _collect(self) -> None:
        if self._running is None:
            return
        outputs, real = self._running
        for name, copy in outputs.items():
            value = copy.result()[:real]
            # a GPU's results lie in pinned memory, which later ones reuse
            self._done[name].append(value if copy.copied is None else value.clone())
        self._running = None


def check_finite(features: dict[str, Tensor], config: FeaturesConfig, where: str) -> None:
    """Check that no feature is NaN or infinite; `where` begins the message.

    Raises:
        FeatureError: A feature is not finite.
    """
    for name, values in features.items():
        if not torch.isfinite(values).all():
            remedy = (
                "set features.dtype and features.precision to bf16 or fp32"
                if "fp16" in (config.dtype, config.precision)
                else "check the weights"
            )
            raise FeatureError(f"{where}: {name} has values that are not finite; {remedy}")


def device_for(local_rank: int) -> torch.device:
    """Return the GPU of a process, or the CPU if there are no GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
