"""Implementations to compare: ours, hiera-transformer, hiera-optim, timm and transformers.

All are built with the same weights and prepared to run one step of a case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from speed_case import DTYPES, Case
from speed_packages import (
    State,
    assert_unpatched,
    import_package,
    optimise,
    reference,
    rename_weights,
    timm_model,
    transformers_model,
)
from torch import Tensor, nn

from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.masking import random_keep

CLASSIFIERS = ("ours", "reference", "optim")
AUTOENCODERS = ("ours", "reference", "optim", "ours_half")
IMAGE_MODELS = ("timm", "transformers")


@dataclass(kw_only=True)
class Implementation:
    """A model and its step."""

    model: nn.Module
    step: Callable[[], dict[str, Tensor]]
    """Runs the step and returns its result by name, for comparison: probabilities or loss."""

    def gradients(self) -> State:
        """Return the gradients of the last step by parameter name."""
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}


def implementations_for(case: Case) -> tuple[str, ...]:
    """Return the implementations that can run the case, installed or not."""
    if case.mode == "mae":
        return AUTOENCODERS
    return CLASSIFIERS + (IMAGE_MODELS if case.images else ())


def build(name: str, case: Case, state: State | None = None) -> Implementation:
    """Build an implementation with the weights of `state`, or with random ones."""
    import_package(name)
    with _no_init():
        model = _BUILDERS[name](case)
    if state is None:
        _redraw(model)
    else:
        model.load_state_dict(rename_weights(name, state, case), strict=True, assign=True)
    if name == "optim":  # after loading, because it copies the weights of attention
        model = optimise(model, graph_safe=case.compiled and case.mode == "mae")
    model = model.to(case.device).train(case.mode != "model")
    if case.mode == "model":
        model = model.to(DTYPES[case.dtype]).requires_grad_(False)
    if name == "reference":
        assert_unpatched(model)
    return Implementation(model=model, step=_step(name, model, case))


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
        # the authors' classifier returns probabilities in evaluation
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
    """Redraw every parameter; with initial heads, scaled by 0.001, any two networks agree."""
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
    """Skip initialisation, which takes minutes for huge models; weights are set afterwards."""
    names = ("trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "normal_")
    with mock.patch.multiple(nn.init, **{name: lambda tensor, *_, **__: tensor for name in names}):
        yield
