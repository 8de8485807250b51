"""A model as a program that runs without this package: torch.export's `.pt2`, ONNX, ONNX in int8.

Not weights for other code (those are `export.py`): the computation itself, captured once, for any number of clips."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from hiera_video.errors import ExportError
from hiera_video.models.hiera import Hiera

Output = Literal["logits", "features"]
Runner = Callable[[Tensor], Tensor]
INPUT = "clips"
TOLERANCE = {".pt2": 1e-5, ".onnx": 1e-4}
"""How far a program's answers may be from the model's. ONNX logits as they are; features, and what `.pt2` answers, over
their largest value: our own kernels round otherwise than the plain ones that are captured, by 7e-6 at logits of 15."""
BATCHES = (1, 3)
"""Batch sizes that are checked; captured is a batch of two."""
ONE_FILE_BYTES = 1_800_000_000
"""Weights above this go beside the ONNX file, into `<name>.data`: protobuf ends at 2 GiB."""


class _Answer(nn.Module):
    """What is captured: one tensor in, one tensor out."""

    def __init__(self, model: Hiera, output: Output) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, clips: Tensor) -> Tensor:
        answer: Tensor = (
            self.model(clips) if self.output == "logits" else self.model.forward_features(clips)
        )
        return answer


def capture(model: Hiera, output: Output) -> ExportedProgram:
    """The graph of `model` in evaluation: clips [B, C, (T,) H, W] to logits [B, K] or to the last map in spatial order
    [B, (t,) h, w, C], for any B."""
    answer = _Answer(model, output).eval()
    clips = torch.zeros(2, model.config.in_chans, *model.config.input_size)
    with torch.no_grad():
        program = torch.export.export(
            answer, (clips,), dynamic_shapes={INPUT: {0: Dim("batch", min=1)}}
        )
    program.example_inputs = (
        None  # they would be stored: 19 MB of zeros for two clips of 16x224x224
    )
    return program


def write_pt2(program: ExportedProgram, path: Path) -> None:
    """`torch.export.load(path).module()` gives it back."""
    torch.export.save(program, path)


def write_onnx(program: ExportedProgram, path: Path, output: Output) -> int:
    """Write ONNX with the input `clips` and the output's name; returns the operator set's number."""
    _require_packages("onnx", "onnxscript")
    with _quiet(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of the exporter's own making: deprecated calls inside torch
        written = torch.onnx.export(
            program,
            (),
            path,
            input_names=[INPUT],
            output_names=[output],
            external_data=_bytes(program) > ONE_FILE_BYTES,
            dynamo=True,
            verbose=False,
        )
    assert written is not None
    return int(written.model.opset_imports[""])


def write_int8(source: Path, path: Path) -> None:
    """The ONNX file `source` with its matrix products in int8: weights by channel, once; activations when it runs."""
    _require_packages("onnx", "onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=[
                "MatMul",
                "Gemm",
            ],  # onnxruntime has no three-dimensional integer convolution
            per_channel=True,
            # 7 bits: without VNNI, sums of two 8-bit products overflow 16 bits, and the loss would depend on the CPU
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=source.with_name(source.name + ".data").exists(),
        )


def runner_of(path: Path) -> Runner:
    """The program in a file, ready to run on the CPU. Raises `ExportError` where it cannot be read."""
    try:
        if path.suffix == ".pt2":
            module = torch.export.load(path).module()
            return lambda clips: module(clips)
        _require_packages("onnxruntime")
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except ExportError:
        raise
    except Exception as error:  # zip, JSON, protobuf and onnxruntime each raise their own kinds
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no details"
        raise ExportError(
            f"{path}: cannot be read ({type(error).__name__}: {first[:160]}); export it anew"
        ) from error
    return lambda clips: torch.from_numpy(session.run(None, {INPUT: clips.numpy()})[0])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far a program's answers are from the model's on the same clips."""

    batch: int
    largest: float
    """Largest absolute difference."""
    scale: float
    """What it is held against: 1, or the largest value where that is more and `relative` was asked for."""

    @property
    def relative(self) -> float:
        return self.largest / self.scale


@torch.no_grad()
def differences(
    model: Hiera, output: Output, run: Runner, *, relative: bool, batches: Sequence[int] = BATCHES
) -> list[Difference]:
    """Model and program side by side on noise of the model's size, one batch of each size."""
    answer, generator = _Answer(model, output).eval(), torch.Generator().manual_seed(0)
    found = []
    for batch in batches:
        clips = torch.randn(
            batch, model.config.in_chans, *model.config.input_size, generator=generator
        )
        wanted, got = answer(clips), run(clips)
        if got.shape != wanted.shape:
            raise ExportError(
                f"the program answers {list(got.shape)}, the model {list(wanted.shape)}: a bug; report it"
            )
        scale = max(1.0, float(wanted.abs().max())) if relative else 1.0
        found.append(
            Difference(batch=batch, largest=float((got - wanted).abs().max()), scale=scale)
        )
    return found


def require_agreement(found: Sequence[Difference], tolerance: float) -> None:
    """Raises `ExportError` where a difference is over `tolerance`, or not a number."""
    for item in found:
        if not item.relative <= tolerance:
            raise ExportError(
                f"the program's answers differ from the model's by {item.relative:.2g} at a batch of {item.batch}, more "
                f"than {tolerance:g}; nothing was written; try the other --format or other versions (here "
                f"{', '.join(f'{name} {number}' for name, number in versions().items())})"
            )


def versions() -> dict[str, str]:
    """Of what takes part in an export, as far as it is installed."""
    found = {}
    for name in ("torch", "onnx", "onnxscript", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _bytes(program: ExportedProgram) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())


def _require_packages(*names: str) -> None:
    missing = [name for name in names if name not in versions()]
    if missing:
        raise ExportError(f"ONNX needs {', '.join(missing)}; pip install 'hiera-video[export]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime and onnxscript advise their own developers through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
