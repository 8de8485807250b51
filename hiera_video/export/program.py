"""A model as a program that runs without this package: torch.export's `.pt2`, ONNX, or int8 ONNX.

A program contains the computation as well as the weights, captured once for any number of clips. To
hand over weights alone, use `hiera_video.save_pretrained`.
"""

from __future__ import annotations

import io
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
from hiera_video.utils.archives import check_stored

Output = Literal["logits", "features"]
Program = Callable[[Tensor], Tensor]
"""A loaded program: clips [B, C, (T,) H, W] to its output."""
INPUT_NAME = "clips"
TOLERANCE = {".pt2": 1e-5, ".onnx": 1e-4}
"""Largest difference from the model's output. Absolute for ONNX logits; for features and `.pt2`,
relative to the largest value: our fused kernels round differently from the plain ones that are
captured, by 7e-6 at logits of 15."""
CHECKED_BATCHES = (1, 3)
"""Batch sizes at which programs are checked; they are captured with a batch of two."""
MAX_ONNX_BYTES = 1_800_000_000
"""Larger weights go into `<name>.data` beside the ONNX file: protobuf is limited to 2 GiB."""


class _SingleOutput(nn.Module):
    """The exported computation: one tensor in, one tensor out."""

    def __init__(self, model: Hiera, output: Output) -> None:
        super().__init__()
        self.model = model
        self.output = output

    def forward(self, clips: Tensor) -> Tensor:
        if self.output == "logits":
            result: Tensor = self.model(clips)
        else:
            result = self.model.forward_features(clips)
        return result


def capture(model: Hiera, output: Output) -> ExportedProgram:
    """Capture the model in evaluation mode as a graph for any batch size.

    Args:
        model: Model that takes clips [B, C, (T,) H, W].
        output: "logits" [B, K], or "features" [B, (t,) h, w, C], the last map in spatial order.
    """
    module = _SingleOutput(model, output).eval()
    clips = torch.zeros(2, model.config.in_chans, *model.config.input_size)
    with torch.no_grad():
        program = torch.export.export(
            module, (clips,), dynamic_shapes={INPUT_NAME: {0: Dim("batch", min=1)}}
        )
    program.example_inputs = None  # else stored: 19 MB of zeros for two clips of 16x224x224
    return program


def write_pt2(program: ExportedProgram, path: Path) -> None:
    """Write a `.pt2` file, which `torch.export.load(path).module()` reads."""
    content = io.BytesIO()  # torch aborts the process if it writes to a full disk
    torch.export.save(program, content)
    path.write_bytes(content.getbuffer())


def write_onnx(program: ExportedProgram, path: Path, output: Output) -> int:
    """Write ONNX with input `clips` and an output named `output`; return the opset version."""
    _require_packages("onnx", "onnxscript")
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    with _quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter calls deprecated functions of torch
        written = torch.onnx.export(
            program,
            (),
            path,
            input_names=[INPUT_NAME],
            output_names=[output],
            external_data=size > MAX_ONNX_BYTES,
            dynamo=True,
            verbose=False,
        )
    assert written is not None
    return int(written.model.opset_imports[""])


def write_int8(source: Path, path: Path) -> None:
    """Quantise the matrix products of an ONNX file to int8.

    Weights are quantised per channel when written, activations at run time.
    """
    _require_packages("onnx", "onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source,
            path,
            # onnxruntime has no three-dimensional integer convolution
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            # 7 bits: without VNNI, sums of two 8-bit products overflow 16 bits, and the accuracy
            # would depend on the CPU
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=source.with_name(source.name + ".data").exists(),
        )


def load_program(path: Path) -> Program:
    """Load a `.pt2` or `.onnx` file to run on the CPU.

    Raises:
        ExportError: If the file cannot be read or onnxruntime is not installed.
    """
    if path.suffix != ".pt2":
        _require_packages("onnxruntime")
    try:
        if path.suffix == ".pt2":
            check_stored(path)
            module = torch.export.load(path).module()
            return lambda clips: module(clips)
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # zip, JSON, protobuf and onnxruntime raise their own types
        message = str(error).strip().partition("\n")[0] or "no details"
        raise ExportError(
            f"{path}: cannot be read ({type(error).__name__}: {message[:160]}); export it again"
        ) from error
    return lambda clips: torch.from_numpy(session.run(None, {INPUT_NAME: clips.numpy()})[0])


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """Difference between a program's output and the model's on the same clips."""

    batch: int
    """Number of clips."""
    largest: float
    """Largest absolute difference."""
    scale: float
    """Divisor: the output's largest value if `relative` and above 1, else 1."""

    @property
    def relative(self) -> float:
        """Largest difference, divided by `scale`."""
        return self.largest / self.scale


@torch.no_grad()
def compare_outputs(
    model: Hiera,
    output: Output,
    program: Program,
    *,
    relative: bool,
    batches: Sequence[int] = CHECKED_BATCHES,
) -> list[OutputDifference]:
    """Compare a program with its model on random clips.

    Args:
        model: The exported model.
        output: The exported output.
        program: The loaded program.
        relative: Divide differences by the output's largest value, if that is above 1.
        batches: Batch sizes to compare at.

    Returns:
        One difference for each batch size.

    Raises:
        ExportError: If the output's shape differs.
    """
    module, generator = _SingleOutput(model, output).eval(), torch.Generator().manual_seed(0)
    found = []
    for batch in batches:
        shape = (batch, model.config.in_chans, *model.config.input_size)
        clips = torch.randn(shape, generator=generator)
        expected, actual = module(clips), program(clips)
        if actual.shape != expected.shape:
            raise ExportError(
                f"the program's output is {list(actual.shape)}, the model's "
                f"{list(expected.shape)}; this is a bug, please report it"
            )
        scale = max(1.0, float(expected.abs().max())) if relative else 1.0
        largest = float((actual - expected).abs().max())
        found.append(OutputDifference(batch=batch, largest=largest, scale=scale))
    return found


def check_differences(found: Sequence[OutputDifference], tolerance: float) -> None:
    """Raise `ExportError` if a difference is above `tolerance` or not a number."""
    for item in found:
        if not item.relative <= tolerance:
            installed = ", ".join(f"{name} {number}" for name, number in versions().items())
            raise ExportError(
                f"the program's output differs from the model's by {item.relative:.2g} at batch "
                f"size {item.batch}, more than {tolerance:g}; nothing was written; try the other "
                f"--format or other versions (installed: {installed})"
            )


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that take part in an export."""
    found = {}
    for name in ("torch", "onnx", "onnxscript", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _require_packages(*names: str) -> None:
    missing = [name for name in names if name not in versions()]
    if missing:
        raise ExportError(f"ONNX needs {', '.join(missing)}; pip install 'hiera-video[export]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the developer warnings that onnxruntime and onnxscript send to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
