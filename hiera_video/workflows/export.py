"""Export a model as one checked file, with a JSON file that describes it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiera_video.errors import ExportError
from hiera_video.utils.hashing import file_sha256
from hiera_video.utils.resumable import exclusive
from hiera_video.workflows.export_source import ExportSource

if TYPE_CHECKING:
    from torch import Tensor

    from hiera_video.export.program import Output, OutputDifference, Program

logger = logging.getLogger(__name__)


def export(
    source: ExportSource,
    target: Path,
    *,
    output: Output = "logits",
    int8: bool = False,
    videos: str | None = None,
    clips: int = 256,
) -> dict[str, Any]:
    """Write a program and `<target>.json`, after checking the program against the model.

    Args:
        source: Model to export.
        target: Path ending in `.pt2` or `.onnx`; replaced if it exists.
        output: "logits" or "features".
        int8: Quantise matrix products to int8 (ONNX), and measure the accuracy lost.
        videos: Manifest or folder for that measurement; the run's `data.val` by default.
        clips: Number of clips to measure on.

    Returns:
        The contents of the JSON file.

    Raises:
        ExportError: If the outputs differ or the file cannot be written; nothing is left behind.
        ConfigError: Another process writes the file.
    """
    from hiera_video.export import program as programs

    measured = None
    if int8:
        from hiera_video.workflows.quantize import load_clips

        measured = load_clips(source, videos or source.data.val, clips)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _scratch_folder(target) as folder:
            path = folder / target.name  # same name: ONNX stores the name of its weights' file
            facts = _describe(source, target, output)
            logger.info("capturing %s", source.name)
            graph = programs.capture(source.model, output)
            if target.suffix == ".pt2":
                programs.write_pt2(graph, path)
            else:
                facts["opset"] = programs.write_onnx(graph, path, output)
            program = programs.load_program(path)
            tolerance = programs.TOLERANCE[target.suffix]
            relative = output == "features" or target.suffix == ".pt2"
            found = programs.compare_outputs(source.model, output, program, relative=relative)
            facts["difference"] = _describe_differences(found, tolerance, relative)
            programs.check_differences(found, tolerance)
            if measured is not None:
                path, facts["int8"] = _quantise(path, program, *measured, output=output)
            del program
            _move_into_place(path, target, facts)
    except OSError as error:
        raise ExportError(
            f"{target}: cannot be written ({error.strerror}); choose another --output"
        ) from error
    return facts


@contextmanager
def _scratch_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; delete it afterwards, or in the next export."""
    folder = target.with_name(f".{target.name}.unfinished")
    busy = f"{target}: another command is writing it; wait for its end or choose another --output"
    with exclusive(target.with_name(f".{target.name}.lock"), busy):
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _quantise(
    path: Path, program: Program, clips: Tensor, labels: list[int | None], *, output: Output
) -> tuple[Path, dict[str, Any]]:
    """Write the int8 version of a program beside it, and measure the accuracy lost."""
    from hiera_video.export.program import load_program, write_int8
    from hiera_video.workflows.quantize import compare_int8

    small = path.parent / "int8" / path.name
    small.parent.mkdir()
    write_int8(path, small)
    facts = compare_int8(program, load_program(small), clips, labels, output=output)
    return small, {**facts, "bytes": _size(small), "float_bytes": _size(path)}


def _describe(source: ExportSource, target: Path, output: Output) -> dict[str, Any]:
    from hiera_video.export.program import INPUT_NAME, versions

    config = source.model.config
    axes = ["frames", "height", "width"][-len(config.input_size) :]
    shape: list[str | int] = ["batch", config.num_classes]
    class_names = list(source.class_names) if source.class_names else None
    if output == "features":
        last = source.model.stages[-1]
        shape = ["batch", *last.grid, last.dim]
        class_names = None
    return {
        "file": target.name,
        "model": source.name,
        "weights": source.weights,
        "input": {
            "name": INPUT_NAME,
            "shape": ["batch", config.in_chans, *config.input_size],
            "dtype": "float32",
        },
        "input_size": dict(zip(axes, config.input_size)),
        "output": {"name": output, "shape": shape},
        "clip": asdict(source.clip) if source.clip else None,
        "pixels": {  # EvalTransform with one crop
            "short_side": config.input_size[-1] * 8 // 7,
            "scaling": "bilinear, without antialiasing",
            "crop": "centre",
            "channels": "RGB in [0, 1], then (value - mean) / std",
        },
        "mean": list(source.augment.mean),
        "std": list(source.augment.std),
        "class_names": class_names,
        "multi_label": source.multi_label,
        "versions": versions(),
    }


def _describe_differences(
    found: Sequence[OutputDifference], tolerance: float, relative: bool
) -> dict[str, Any]:
    for item in found:
        logger.info(
            "batch size %d: largest difference from the model %.2g", item.batch, item.relative
        )
    return {
        "by_batch": {str(item.batch): item.relative for item in found},
        "over_the_largest_value": relative,
        "tolerance": tolerance,
    }


def _size(program: Path) -> int:
    """Return the bytes of a program's files."""
    files = program.parent.glob(f"{program.name}*")
    return sum(path.stat().st_size for path in files if path.is_file())


def _move_into_place(path: Path, target: Path, facts: dict[str, Any]) -> None:
    """Move a checked program's files to their places; last the JSON, which has the sha256."""
    facts["sha256"] = file_sha256(path)
    note = path.with_name(f"{target.name}.json")
    note.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in (f"{target.name}.data", target.name, note.name):
        if (path.parent / name).exists():
            (path.parent / name).replace(target.with_name(name))
    logger.info(
        "%s: %.1f MB; input and output are described in %s",
        target,
        _size(target) / 1e6,
        note.name,
    )
