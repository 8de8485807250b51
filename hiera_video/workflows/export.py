"""A run or a model with weights as one file that runs elsewhere: what `tools/export.py` does."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hiera_video.config.load import load_config
from hiera_video.data.config import AugmentConfig, DataConfig
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError, ExportError
from hiera_video.models.registry import config_for, is_mae
from hiera_video.utils.hashing import file_sha256

if TYPE_CHECKING:
    from hiera_video.export.program import Difference
    from hiera_video.models.hiera import Hiera

logger = logging.getLogger(__name__)
Output = Literal["logits", "features"]


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A model, and what a program's user has to know of it."""

    model: Hiera
    name: str
    weights: str
    """Where they came from."""
    clip: ClipConfig | None
    """Which frames make a clip; None for an image model."""
    class_names: tuple[str, ...] | None = None
    multi_label: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Mean and standard deviation."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where the videos of the run are."""


def check_names(run: str | None, model: str | None) -> None:
    """`ConfigError` for a model that cannot be exported, before torch is imported."""
    name = load_config(Path(run) / "config.yaml").model.name if run else str(model)
    config_for(name)
    if is_mae(name):
        encoder = name.removeprefix("mae_")
        raise ConfigError(
            f"{name}: a masked autoencoder draws its masks anew each time and answers with a loss; export its encoder: "
            f"--model {encoder} --pretrained {run or 'FILE'} --output-of features"
        )


def source_of_run(run: str, which: Literal["best", "last"] | None) -> ExportSource:
    """A finished run. Raises `CheckpointError` where it has no such checkpoint."""
    from hiera_video.models.weights.load import checkpoint_of
    from hiera_video.workflows.load_run import load

    loaded, checkpoint = load(run, which), checkpoint_of(Path(run), which)
    return ExportSource(
        model=loaded.model,  # type: ignore[arg-type]  # check_names saw that it is a classifier
        name=loaded.config.model.name,
        weights=f"{run} ({checkpoint.name})",
        clip=loaded.config.clip,
        class_names=loaded.class_names,
        multi_label=loaded.multi_label,
        augment=loaded.config.augment,
        data=loaded.config.data,
    )


def source_of_weights(name: str, pretrained: str, output: Output) -> ExportSource:
    """A model by name with `pretrained` weights, or fresh ones ("none"); normalised as published models are."""
    from hiera_video.models.factory import create_model
    from hiera_video.models.weights.load import load_pretrained, read_weights

    weights = None if pretrained == "none" else read_weights(pretrained, name)
    if weights is not None and weights.num_classes is None and output == "logits":
        raise ConfigError(
            f"{pretrained}: has no classifier's head; export what it has: --output-of features"
        )
    size = weights.config.get("input_size") if weights else None
    model = create_model(
        name,
        num_classes=weights.num_classes if weights else None,
        input_size=tuple(size) if size else None,
    )
    if weights is not None:
        load_pretrained(model, weights, name=name)
    frames = model.config.input_size[0] if len(model.config.input_size) == 3 else None
    return ExportSource(
        model=model.eval(),  # type: ignore[arg-type]
        name=name,
        weights=pretrained,
        clip=ClipConfig(num_frames=frames) if frames else None,
        class_names=weights.class_names if weights else None,
    )


def export(
    source: ExportSource,
    target: Path,
    *,
    output: Output = "logits",
    int8: bool = False,
    videos: str | None = None,
    clips: int = 256,
) -> dict[str, Any]:
    """Write `target` (.pt2 or .onnx) and `<target>.json`, after checking the program against the model; returns what the
    JSON says. int8: quantised, its loss measured on `clips` clips of `videos` (a list or folder; the run's `data.val`
    where not given). Raises `ExportError` where the answers differ; nothing is left behind then."""
    from hiera_video.export import program as programs

    suffix = target.suffix
    measured = _real_clips(source, videos, clips) if int8 else None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            made = Path(folder) / target.name  # ONNX stores the name of its weights' file
            facts = _facts(source, target, output)
            logger.info("capturing %s", source.name)
            graph = programs.capture(source.model, output)
            if suffix == ".pt2":
                programs.write_pt2(graph, made)
            else:
                facts["opset"] = programs.write_onnx(graph, made, output)
            run = programs.runner_of(made)
            relative = output == "features" or suffix == ".pt2"
            found = programs.differences(source.model, output, run, relative=relative)
            facts["difference"] = _said(found, programs.TOLERANCE[suffix], relative)
            programs.require_agreement(found, programs.TOLERANCE[suffix])
            if measured is not None:
                from hiera_video.workflows.quantize import measure_loss

                small = Path(folder) / "int8" / target.name
                small.parent.mkdir()
                programs.write_int8(made, small)
                facts["int8"] = measure_loss(
                    run, programs.runner_of(small), *measured, output=output
                )
                facts["int8"] |= {"bytes": _size(small), "float_bytes": _size(made)}
                made = small
            del run
            _put(made, target, facts)
    except OSError as error:
        raise ExportError(
            f"{target}: cannot be written ({error.strerror}); choose another --output"
        ) from error
    return facts


def _facts(source: ExportSource, target: Path, output: Output) -> dict[str, Any]:
    from hiera_video.export.program import INPUT, versions

    config = source.model.config
    axes = ["frames", "height", "width"][-len(config.input_size) :]
    answer: list[str | int] = ["batch", config.num_classes]
    if output == "features":
        last = source.model.stages[-1]
        answer = ["batch", *last.grid, last.dim]
    return {
        "file": target.name,
        "model": source.name,
        "weights": source.weights,
        "input": {
            "name": INPUT,
            "shape": ["batch", config.in_chans, *config.input_size],
            "dtype": "float32",
        },
        "input_size": dict(zip(axes, config.input_size)),
        "output": {"name": output, "shape": answer},
        "clip": asdict(source.clip) if source.clip else None,
        "pixels": {  # EvalTransform with one crop
            "short_side": config.input_size[-1] * 8 // 7,
            "scaling": "bilinear, without antialiasing",
            "crop": "centre",
            "channels": "RGB in [0, 1], then (value - mean) / std",
        },
        "mean": list(source.augment.mean),
        "std": list(source.augment.std),
        "class_names": list(source.class_names)
        if source.class_names and output == "logits"
        else None,
        "multi_label": source.multi_label,
        "versions": versions(),
    }


def _said(found: Sequence[Difference], tolerance: float, relative: bool) -> dict[str, Any]:
    for item in found:
        logger.info(
            "batch of %d: largest difference from the model %.2g", item.batch, item.relative
        )
    return {
        "by_batch": {str(item.batch): item.relative for item in found},
        "over_the_largest_value": relative,
        "tolerance": tolerance,
    }


def _size(program: Path) -> int:
    return sum(
        path.stat().st_size for path in program.parent.glob(f"{program.name}*") if path.is_file()
    )


def _put(made: Path, target: Path, facts: dict[str, Any]) -> None:
    """The files of a program that was found good to their places; the JSON, which knows the program's sha256, last."""
    facts["sha256"] = file_sha256(made)
    note = made.with_name(f"{target.name}.json")
    note.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in (f"{target.name}.data", target.name, note.name):
        if (made.parent / name).exists():
            (made.parent / name).replace(target.with_name(name))
    logger.info(
        "%s: %.1f MB; what it takes and answers: %s", target, _size(target) / 1e6, note.name
    )


def _real_clips(source: ExportSource, videos: str | None, count: int) -> tuple[Any, Any]:
    from hiera_video.workflows.quantize import real_clips

    return real_clips(source, videos or source.data.val, count)
