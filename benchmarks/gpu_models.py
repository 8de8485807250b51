"""Inference and training steps of ours, hiera-transformer and hiera-optim on a GPU, in turns."""

from __future__ import annotations

import gc
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from gpu_timing import Run, Setup, time_candidates
from speed_case import Case, Mode
from speed_packages import import_package, missing_package, optimise, reference
from torch import Tensor, nn
from torch.nn import functional as F

from hiera_video.models.compiled import compile_blocks
from hiera_video.models.hiera import Hiera
from hiera_video.models.macs import count_macs
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.masking import random_keep
from hiera_video.runtime.cuda_graphs import GraphedForward
from hiera_video.runtime.precision import autocast

WARM_UP = 3
OFF: dict[str, tuple[str, str, Any]] = {
    "conv": ("hiera_video.models.tokens", "PATCH_PRODUCT", False),
    "sdpa": ("hiera_video.models.blocks", "WINDOW_KERNEL", False),
    "flash": ("hiera_video.models.blocks", "HOPPER_BACKENDS", ()),
}
"""Switches that change a choice of ours: module, constant, and the constant's value then."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs of every candidate of a case."""

    clips: Tensor
    labels: Tensor
    keep: Tensor | None = None
    """bool [B, units], True = visible; None for a classifier."""
    visible: Tensor | None = None
    """Indices of the visible units [B, n], as hiera-optim takes them."""


def measure(
    mode: Mode, size: str, batch: int, candidates: Sequence[str], setup: Setup
) -> dict[str, Any]:
    """Time one step of each candidate on the same batch with the same weights.

    Args:
        mode: `model` for inference, `train` or `mae` for forward, backward and optimizer step.
        size: Size of the model.
        batch: Clips of the batch.
        candidates: `<package>` or `<package>+<switch>+…`: package `ours`, `reference` or `optim`,
            switches `compile`, `graph` (ours: the product's for inference, the whole step in
            training), `autocast` (inference with float32 weights), `fp32`,
            and those of `OFF`.
        setup: Device and number of rounds.

    Returns:
        Per candidate `seconds`, `clips_per_second`, `peak_gb` and `difference` (of the result from
        that of the first candidate, relative), or its error in `errors`; and the arithmetic of a
        clip, `flops_per_clip`.
    """
    case = make_case(mode, size, batch, setup)
    inputs = make_batch(case, setup.device)
    state, macs = make_state(case, setup)
    found: dict[str, Any] = {
        "case": {"mode": mode, "size": size, "batch": batch},
        "flops_per_clip": (2 if mode == "model" else 6) * macs,
        "candidates": {},
        "errors": {},
    }
    runs: dict[str, Run] = {}
    first: Tensor | None = None
    for name in candidates:
        missing = missing_package(name.split("+")[0])
        if missing:
            found["errors"][name] = f"{missing} is not installed"
            continue
        before, run = start_of_memory(setup), None
        try:
            run = build(name, case, inputs, state, setup)
            result = run().detach().float().clone()
            for _ in range(WARM_UP):
                run()
            peak = peak_gb(before, setup)
        except Exception as error:  # recorded; the others are measured
            found["errors"][name], run = describe(error), None
        if run is None:
            free_memory(setup)  # after the error, which holds the tensors of its frames
            continue
        first = result if first is None else first
        found["candidates"][name] = {"difference": relative(result, first), "peak_gb": peak}
        runs[name] = run
    for name, seconds in time_candidates(runs, setup).items() if runs else ():
        rate = round(batch / seconds["median"], 2)
        found["candidates"][name] |= {"seconds": seconds, "clips_per_second": rate}
    runs.clear()
    torch._dynamo.reset()
    free_memory(setup)
    return found


def make_case(mode: Mode, size: str, batch: int, setup: Setup) -> Case:
    """Return a case in bfloat16."""
    return Case(
        mode=mode,
        size=size,
        batch=batch,
        resolution=32 if size == "micro" else 224,
        dtype="bfloat16",
        device=setup.device.type,
    )


def make_state(case: Case, setup: Setup) -> tuple[dict[str, Tensor], int]:
    """Return weights for all candidates, and the multiply-accumulates of a clip."""
    model = _ours(case, setup.device)
    redraw(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return state, count_macs(model, (3, *case.input_size))


def make_batch(case: Case, device: torch.device) -> Batch:
    """Return noise clips, labels and, for the masked autoencoder, visible units."""
    torch.manual_seed(0)
    mae, config = case.mae(), case.config
    clips = torch.randn(case.batch, 3, *case.input_size, device=device)
    labels = torch.arange(case.batch, device=device) % config.num_classes
    if mae is None:
        return Batch(clips=clips, labels=labels)
    keep = random_keep(case.batch, config.num_units, mae.mask_ratio).to(device)
    visible = keep.nonzero()[:, 1].view(case.batch, -1)
    return Batch(clips=clips, labels=labels, keep=keep, visible=visible)


@torch.no_grad()
def redraw(model: nn.Module) -> None:
    """Redraw all matrices; with initial heads, scaled by 0.001, any two networks agree."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.05)


def build(
    name: str, case: Case, inputs: Batch, state: dict[str, Tensor], setup: Setup
) -> Callable[[], Tensor]:
    """Build a candidate and return its step, which returns the probabilities or the loss."""
    package, *switches = name.split("+")
    model = _model(package, case, state, setup.device, graph_safe="graph" in switches)
    if case.mode == "model":
        model = model.eval().requires_grad_(False)
        run = _inference(package, switches, model, inputs, setup)
    else:
        run = _training(package, switches, model.train(), inputs, setup)
    return with_choices_off([OFF[switch] for switch in switches if switch in OFF], run)


def with_choices_off(
    choices: Sequence[tuple[str, str, Any]], run: Callable[[], Tensor]
) -> Callable[[], Tensor]:
    """Return `run` with constants of our modules changed while it runs."""
    places = [(import_module(module), name, value) for module, name, value in choices]
    for module, name, _ in places:
        assert hasattr(module, name), f"{module.__name__} has no {name}"
    if not places:
        return run

    def changed() -> Tensor:
        before = [getattr(module, name) for module, name, _ in places]
        for module, name, value in places:
            setattr(module, name, value)
        try:
            return run()
        finally:
            for (module, name, _), value in zip(places, before):
                setattr(module, name, value)

    return changed


def _ours(case: Case, device: torch.device) -> nn.Module:
    mae = case.mae()
    with torch.device(device):  # initialised there: seconds less for a large model
        model = Hiera(case.config) if mae is None else MaskedAutoencoderHiera(case.config, mae)
    return model.to(device)


def _model(
    package: str, case: Case, state: dict[str, Tensor], device: torch.device, *, graph_safe: bool
) -> nn.Module:
    import_package(package)
    if package == "ours":
        model = _ours(case, device)
    else:
        with warnings.catch_warnings(), torch.device(device):
            warnings.simplefilter("ignore")
            model = reference(case)
    model.load_state_dict(state)
    if package == "optim":  # after loading, because it copies the weights of attention
        model = optimise(model, graph_safe=graph_safe)
    return model.to(device)


def _inference(
    package: str, switches: Sequence[str], model: nn.Module, inputs: Batch, setup: Setup
) -> Callable[[], Tensor]:
    precision = "bf16" if "autocast" in switches else "fp32"
    clips = inputs.clips
    if "autocast" not in switches and "fp32" not in switches:
        model, clips = model.to(torch.bfloat16), clips.to(torch.bfloat16)
    forward = _compiled(package, switches, model)

    @torch.inference_mode()
    def infer(clips: Tensor) -> Tensor:
        with autocast(precision, setup.device):
            out = forward(clips).float()
        # the authors' classifier returns probabilities in evaluation
        return out.softmax(dim=-1) if package == "ours" else out  # type: ignore[no-any-return]

    if package != "ours" or "graph" not in switches:
        return lambda: infer(clips)
    graph = GraphedForward(infer)
    graph(clips)
    assert graph.captured, "the CUDA graph could not be captured"
    return lambda: graph(clips)  # type: ignore[no-any-return]


def _training(
    package: str, switches: Sequence[str], model: nn.Module, inputs: Batch, setup: Setup
) -> Callable[[], Tensor]:
    capture = "graph" in switches and package == "ours"
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-6, weight_decay=0.05, fused=True, capturable=capture
    )
    forward = _compiled(package, switches, model)
    precision = "fp32" if "fp32" in switches else "bf16"

    def run() -> Tensor:
        if "graph" in switches and package != "ours":
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, setup.device):
            loss = _loss(package, forward, inputs)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return graphed(run) if capture else run


def _compiled(package: str, switches: Sequence[str], model: nn.Module) -> Callable[..., Any]:
    """Compile as each package documents: our blocks, or the authors' whole model."""
    if package == "ours":
        if "compile" in switches:
            compile_blocks(model)
        return model
    if "graph" in switches:
        return torch.compile(model, mode="reduce-overhead", dynamic=False)  # type: ignore[no-any-return]
    if "compile" in switches:
        return torch.compile(model, dynamic=False)  # type: ignore[no-any-return]
    return model


def _loss(package: str, forward: Callable[..., Any], inputs: Batch) -> Tensor:
    if inputs.visible is None:
        return F.cross_entropy(forward(inputs.clips).float(), inputs.labels)
    if package == "ours":
        visible = inputs.visible.shape[1]
        return forward(inputs.clips, keep=inputs.keep, visible=visible).loss  # type: ignore[no-any-return]
    if package == "optim":
        return forward(inputs.clips, mask=inputs.keep, keep_idx=inputs.visible)[0]  # type: ignore[no-any-return]
    return forward(inputs.clips, mask=inputs.keep)[0]  # type: ignore[no-any-return]


def graphed(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Capture `run`, which reads and writes the same memory each time, in a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Tensor:
        assert run is not None  # keeps model and optimizer, whose memory the graph uses
        graph.replay()
        return result

    return replay


def relative(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float(f"{float((one - other).abs().max() / other.abs().max()):.2g}")


def describe(error: BaseException) -> dict[str, Any]:
    """Return type, message and the last lines of the traceback."""
    lines = traceback.format_exception(error)
    return {
        "type": type(error).__name__,
        "message": str(error)[:1000],
        "traceback": "".join(lines)[-2500:].splitlines(),
    }


def start_of_memory(setup: Setup) -> int:
    """Return the allocated bytes and start to measure the peak."""
    if not setup.on_gpu:
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak_gb(before: int, setup: Setup) -> float | None:
    """Return the gigabytes allocated at the peak beyond `before`; None on a CPU."""
    if not setup.on_gpu:
        return None
    return round((torch.cuda.max_memory_allocated() - before) / 1e9, 3)


def free_memory(setup: Setup) -> None:
    """Free what earlier candidates have left."""
    gc.collect()
    if setup.on_gpu:
        torch.cuda.empty_cache()
