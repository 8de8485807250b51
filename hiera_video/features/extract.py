"""Clips in, features out, in batches of one fixed shape: what a device does for a shard."""

from __future__ import annotations

import torch
from torch import Tensor

from hiera_video.errors import ConfigError, FeatureError
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.store import DTYPES
from hiera_video.models.hiera import HieraEncoder
from hiera_video.runtime.precision import autocast


def chosen_stages(config: FeaturesConfig, count: int) -> tuple[int, ...]:
    """`features.stages` of a model with `count` stages, ascending. `ConfigError` where it has not that many."""
    stages = tuple(sorted(config.stages)) if config.stages else (count,)
    if stages[-1] > count:
        raise ConfigError(f"features.stages={list(stages)}: this model has stages 1 to {count}")
    return stages


class ClipEncoder:
    """[B, 3, T, S, S] → `stage<n>`: [B, …], pooled as `features.pooling` says, in `features.dtype`."""

    def __init__(self, model: HieraEncoder, config: FeaturesConfig, device: torch.device) -> None:
        self.model = model.eval().to(device)
        self.device = device
        self.pooling = config.pooling
        self.dtype = DTYPES[config.dtype]
        self.precision = config.precision
        self.stages = chosen_stages(config, len(model.stages))

    @property
    def names(self) -> dict[str, list[int]]:
        """Shape of one clip's feature, by name."""
        found = {}
        for stage in self.stages:
            layout = self.model.stages[stage - 1]
            grid = {"mean": [], "max": [], "temporal": [*layout.grid[:1]], "none": [*layout.grid]}[
                self.pooling
            ]
            found[f"stage{stage}"] = [*grid, layout.dim]
        return found

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> dict[str, Tensor]:
        with autocast(self.precision, self.device):
            outputs = self.model.encode(clips)
        return {f"stage{stage}": self._pooled(outputs[stage - 1], stage) for stage in self.stages}

    def _pooled(self, tokens: Tensor, stage: int) -> Tensor:
        """Tokens [B, units, tokens of a unit, C] of one stage, whose order matters for maps alone."""
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
    """Takes clips one by one, and computes them in batches that all have the same shape: the last one is padded.

    Two buffers, so that one is filled while the device computes the other; on a GPU they are pinned, and a batch's
    results are on their way to the CPU as soon as they are computed.
    """

    def __init__(self, encoder: ClipEncoder, batch_size: int, clip_shape: tuple[int, ...]) -> None:
        self.encoder = encoder
        pinned = encoder.device.type == "cuda"
        self._buffers = [torch.zeros(batch_size, *clip_shape, pin_memory=pinned) for _ in range(2)]
        self._filled = 0
        self._running: tuple[dict[str, Tensor], int, torch.cuda.Event | None] | None = None
        self._done: dict[str, list[Tensor]] = {name: [] for name in encoder.names}

    def add(self, clip: Tensor) -> None:
        """float32 [3, T, S, S]."""
        self._buffers[0][self._filled] = clip
        self._filled += 1
        if self._filled == len(self._buffers[0]):
            self._launch()

    def finish(self) -> dict[str, Tensor]:
        """The features of every clip since the last `finish`, in their order, on the CPU."""
        if self._filled:
            self._buffers[0][self._filled :] = 0
            self._launch()
        self._collect()
        found = {
            name: torch.cat(parts)
            if parts
            else torch.empty(0, *self.encoder.names[name], dtype=self.encoder.dtype)
            for name, parts in self._done.items()
        }
        self._done = {name: [] for name in found}
        return found

    def _launch(self) -> None:
        clips = self._buffers[0].to(self.encoder.device, non_blocking=True)
        outputs, copied = self.encoder(clips), None
        if self.encoder.device.type == "cuda":
            # queued here, right behind its own batch: in `_collect` the copy would stand behind the next one too
            outputs = {name: value.to("cpu", non_blocking=True) for name, value in outputs.items()}
            copied = torch.cuda.current_stream(self.encoder.device).record_event()
        self._collect()  # the batch before: the device has this one to go on with
        self._running, self._filled = (outputs, self._filled, copied), 0
        self._buffers.reverse()

    def _collect(self) -> None:
        if self._running is None:
            return
        outputs, real, copied = self._running
        if copied is not None:
            copied.synchronize()
        for name, value in outputs.items():
            # a GPU's results leave the pinned memory that they were copied to: later batches take it again
            self._done[name].append(value[:real].cpu() if copied is None else value[:real].clone())
        self._running = None


def check_finite(features: dict[str, Tensor], config: FeaturesConfig, where: str) -> None:
    """`FeatureError` where a feature is NaN or infinite: nobody could tell later."""
    for name, values in features.items():
        if not torch.isfinite(values).all():
            halves = {config.dtype, config.precision} & {"fp16"}
            remedy = (
                "set features.dtype and features.precision to bf16 or fp32"
                if halves
                else "check the weights"
            )
            raise FeatureError(f"{where}: {name} holds values that are not finite; {remedy}")


def device_of(local_rank: int) -> torch.device:
    """The GPU of a process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
