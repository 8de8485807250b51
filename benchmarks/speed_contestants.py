"""Who is measured: ours, the authors' package, that with hiera-optim, timm and transformers; all with the same weights.

Each is built from one state dict, and gives a step to time and what the step computed, to be compared first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
from speed_rivals import (
    State,
    assert_plain,
    import_for,
    optimised,
    reference,
    renamed,
    timm_model,
    transformers_model,
)
from torch import Tensor, nn

from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import HieraConfig
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.masking import random_keep
from hiera_video.models.registry import MaeConfig, config_for, default_mae

Mode = Literal["model", "train", "mae"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CLASSIFIERS = ("ours", "reference", "optim")
AUTOENCODERS = ("ours", "reference", "optim", "ours_half")
IMAGE_MODELS = ("timm", "transformers")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure."""

    mode: Mode
    """Inference, a fine-tuning step (forward and backward), or a masked pre-training step (likewise)."""
    size: str
    """A name of `SIZES`, or micro."""
    images: bool = False
    """Image models instead of video models."""
    frames: int = 16
    resolution: int = 224
    batch: int = 1
    dtype: str = "float32"
    """bfloat16: cast weights for inference, autocast for the steps with a backward pass."""
    device: str = "cpu"
    compiled: bool = False
    """torch.compile for ours, the reference and hiera-optim (there as its own manual says: graph-safe)."""

    @property
    def name(self) -> str:
        """The model's, as `create_model` knows it."""
        own = (
            "micro_16x32"
            if self.size == "micro"
            else f"{self.size}_{'224' if self.images else '16x224'}"
        )
        return f"{'mae_' if self.mode == 'mae' else ''}hiera_{own}"

    @property
    def input_size(self) -> tuple[int, ...]:
        """(frames, height, width), or (height, width)."""
        return (
            (self.resolution,) * 2
            if self.images
            else (self.frames, self.resolution, self.resolution)
        )

    @property
    def config(self) -> HieraConfig:
        """The encoder's."""
        return config_for(self.name, input_size=self.input_size)

    def mae(self, half: bool = False) -> MaeConfig | None:
        """The decoder's, or None for a classifier; half: decode half of the hidden tokens."""
        if self.mode != "mae":
            return None
        full = default_mae(self.name)
        heads = {"decoder_embed_dim": full.decoder_embed_dim, "decoder_depth": full.decoder_depth}
        dual = {"decoder_tokens": "running_cell", "decoder_share": 0.5} if half else {}
        return MaeConfig(
            mask_ratio=full.mask_ratio,
            decoder_num_heads=full.decoder_num_heads,
            **heads,
            **dual,  # type: ignore[arg-type]
        )


@dataclass(kw_only=True)
class Contestant:
    """A model and its step."""

    name: str
    model: nn.Module
    step: Callable[[], dict[str, Tensor]]
    """Runs the step; returns what it computed, by name, to be compared: probabilities, or loss."""
    notes: list[str] = field(default_factory=list)

    def gradients(self) -> State:
        """Those that the last step left, by the authors' names."""
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}


def names_for(case: Case) -> tuple[str, ...]:
    """Who can run the case, installed or not."""
    if case.mode == "mae":
        return AUTOENCODERS
    return CLASSIFIERS + (IMAGE_MODELS if case.images else ())


def make(name: str, case: Case, state: State | None = None) -> Contestant:
    """Build a contestant; its weights are `state`'s, or drawn anew."""
    import_for(name)
    with _no_init():
        model = _BUILDERS[name](case)
    if state is None:
        _redraw(model)
    else:
        names = renamed(name, state, case)
        model.load_state_dict(names, strict=True, assign=True)
    if name == "optim":  # after the weights: it copies the attentions'
        model = optimised(model, graph_safe=case.compiled and case.mode == "mae")
    model = model.to(case.device).train(case.mode != "model")
    if case.mode == "model":
        model = model.to(DTYPES[case.dtype]).requires_grad_(False)
    if name == "reference":
        assert_plain(model)
    return Contestant(name=name, model=model, step=_step(name, model, case))


def _step(name: str, model: nn.Module, case: Case) -> Callable[[], dict[str, Tensor]]:
    torch.manual_seed(0)
    clips = torch.randn(case.batch, 3, *case.input_size).to(case.device)
    labels = torch.arange(case.batch, device=case.device) % case.config.num_classes
    mae = case.mae()
    keep = (
        random_keep(case.batch, case.config.num_units, mae.mask_ratio).to(case.device)
        if mae
        else None
    )
    visible = None if keep is None else keep.nonzero()[:, 1].view(case.batch, -1)
    run: Any = model
    if case.compiled and name in (*CLASSIFIERS, *AUTOENCODERS):
        mode = "reduce-overhead" if case.device == "cuda" and name == "optim" else "default"
        run = torch.compile(model, mode=mode, dynamic=False)

    def infer() -> dict[str, Tensor]:
        with torch.inference_mode():
            out = run(clips.to(DTYPES[case.dtype]))
        out = getattr(out, "logits", out).float()
        # the authors' classifier gives probabilities in evaluation
        return {"probabilities": out if name in ("reference", "optim") else out.softmax(-1)}

    def fine_tune() -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        with _autocast(case):
            out = run(clips)
            loss = F.cross_entropy(getattr(out, "logits", out).float(), labels)
        loss.backward()
        return {"loss": loss.detach()}

    def pre_train() -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        with _autocast(case):
            if name == "reference":
                loss = run(clips, mask=keep)[0]
            elif name == "optim":
                loss = run(clips, mask=keep, keep_idx=visible)[0]
            else:
                loss = run(clips, keep=keep).loss
        loss.backward()
        return {"loss": loss.detach()}

    return {"model": infer, "train": fine_tune, "mae": pre_train}[case.mode]


def _autocast(case: Case) -> AbstractContextManager[Any]:
    if case.dtype == "float32":
        return nullcontext()
    return torch.autocast(case.device, dtype=DTYPES[case.dtype])


def _ours(case: Case) -> nn.Module:
    mae = case.mae()
    return Hiera(case.config) if mae is None else MaskedAutoencoderHiera(case.config, mae)


def _ours_half(case: Case) -> nn.Module:
    mae = case.mae(half=True)
    assert mae is not None
    return MaskedAutoencoderHiera(case.config, mae)


_BUILDERS: dict[str, Callable[[Case], nn.Module]] = {
    "ours": _ours,
    "ours_half": _ours_half,
    "reference": reference,
    "optim": reference,
    "timm": timm_model,
    "transformers": transformers_model,
}


@torch.no_grad()
def _redraw(model: nn.Module) -> None:
    """With the initial weights, whose head is scaled by 0.001, any two networks agree; with these they do not."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.05, generator=generator)
        else:
            parameter.uniform_(-0.1, 0.1, generator=generator).add_(
                1.0 if parameter.mean() > 0.5 else 0.0
            )


@contextmanager
def _no_init() -> Iterator[None]:
    """Weights stay unwritten until they are given: drawing a huge model's several times takes minutes."""
    names = ("trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "normal_")
    with mock.patch.multiple(nn.init, **{name: lambda tensor, *_, **__: tensor for name in names}):
        yield
