"""Load weights from files, run folders, the Hugging Face hub and the authors' server.

Nothing here unpickles objects: torch files are always read with `weights_only=True`, and objects
beside tensors, numbers and strings are skipped; see `torch_files`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from hiera_video.errors import CheckpointError
from hiera_video.models.build import build_model
from hiera_video.models.hiera import Hiera, HieraEncoder
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.weights.architecture import constructor_arguments, rebuild_configs
from hiera_video.models.weights.convert import LoadReport, adapt_state_dict
from hiera_video.models.weights.heads import HEAD, unnamed_heads
from hiera_video.models.weights.inflate import Inflation, State
from hiera_video.models.weights.json_object import as_object, read_object
from hiera_video.models.weights.link import read_through_link
from hiera_video.models.weights.published import PUBLISHED, checkpoint_tags
from hiera_video.models.weights.state_dict import extract_state_dict
from hiera_video.models.weights.torch_files import MAX_NAMES, load_torch_file
from hiera_video.models.weights.transformers_names import class_names_from_transformers
from hiera_video.utils.archives import check_stored
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.hashing import file_sha256
from hiera_video.utils.text_files import count_of, printable

logger = logging.getLogger(__name__)

_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "model.pth")
_INDEX = "model.safetensors.index.json"
"""Index of weights that are split over several files: tensor → file."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A state dict and the metadata stored with it."""

    source: str
    """File, folder or tag, as given by the user."""
    state: State
    """Tensors by the authors' names."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """hiera-transformer's constructor arguments, from `config.json`, or empty."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Contents of `hiera_video.json`, which `save_pretrained` writes, or empty."""
    class_names: tuple[str, ...] | None = None
    """Class names, if stored."""
    multi_label: bool | None = None
    """True if the model was trained with several labels a video; None if unknown."""

    @property
    def num_classes(self) -> int | None:
        """Outputs of the head, or of a matrix that may be one by another name; None without."""
        head = self.state.get(HEAD)
        return next(iter(unnamed_heads(self.state).values()), None) if head is None else len(head)


def load_pretrained(
    model: HieraEncoder,
    source: str | Path | Weights,
    *,
    name: str = "",
    inflation: Inflation = "center",
) -> LoadReport:
    """Load weights into `model` in place, and log what was loaded, initialised and dropped.

    Args:
        model: A `Hiera` or `MaskedAutoencoderHiera`.
        source: Weights, or any source that `read_weights` accepts.
        name: The model's name, for tags such as `mae_k400`.
        inflation: How an image model's weights become a video model's; see
            `hiera_video.models.weights.inflate.inflate_image_weights`.

    Returns:
        The names of loaded, newly initialised and dropped tensors.

    Raises:
        CheckpointError: If the weights cannot be read or belong to another architecture.
    """
    weights = source if isinstance(source, Weights) else read_weights(source, name)
    _check_head_counts(weights, model)
    adapted, report = adapt_state_dict(weights.state, model, weights.source, inflation)
    model.load_state_dict(adapted, strict=False)
    loaded = count_of(len(report.loaded), "tensor")
    logger.info("%s: loaded %s; %s", report.source, loaded, _summary(report))
    # a sum needs no copy, and is finite only if all terms are
    broken = [n for n, value in adapted.items() if not value.sum(dtype=torch.float64).isfinite()]
    if broken:
        logger.warning(
            "%s: %d tensors have values that are not finite, such as %s; the model's outputs will "
            "not be either",
            report.source,
            len(broken),
            broken[0],
        )
    if isinstance(model, MaskedAutoencoderHiera):
        recorded = "decoder_num_heads" in weights.config
        logger.info(
            "%s: autoencoder of %d heads in stage 1 and %d in the decoder (%s)",
            report.source,
            model.config.num_heads,
            model.mae.decoder_num_heads,
            "its config.json, or the default of the library that wrote it"
            if recorded
            else "the model's; the file does not record them",
        )
    return report


def from_pretrained(source: str | Path) -> Hiera | MaskedAutoencoderHiera:
    """Rebuild a model from a folder that contains its configuration.

    Args:
        source: A folder with `config.json`, written by this package, hiera-transformer,
            transformers or timm, or such a folder on the hub (`hf-hub:owner/name[@revision]`).

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: If the folder cannot be read or has no usable `config.json`.
    """
    weights = read_weights(source)
    config, mae = rebuild_configs(weights.config, weights.extras, weights.state, str(source))

    def build() -> Hiera | MaskedAutoencoderHiera:
        return build_model(config, mae if "mask_token" in weights.state else None)

    with torch.device("meta"):  # before any memory is taken
        _check_shapes(build(), weights)
    model = build()
    load_pretrained(model, weights)
    return model.eval()


def _check_shapes(model: HieraEncoder, weights: Weights) -> None:
    """Raise an error unless every parameter of `model` has its shape in the weights."""
    for name, parameter in model.named_parameters():
        stored = weights.state.get(name)
        if name == "pos_embed" and "pos_embed_win" in weights.state:
            continue  # merged while loading
        if stored is None or stored.shape != parameter.shape:
            found = "missing" if stored is None else list(stored.shape)
            raise CheckpointError(
                f"{weights.source}: {name} is {found} in the file and {list(parameter.shape)} by "
                "config.json; the two do not belong together"
            )


def _summary(report: LoadReport) -> str:
    parts = [*report.notes]
    groups = (("newly initialised", report.newly_initialised), ("dropped", report.dropped))
    for label, names in groups:
        modules = sorted({name.split(".")[0] for name in names})
        if modules:
            parts.append(f"{label}: {', '.join(modules)}")
    return "; ".join(parts) or "none newly initialised, none dropped"


def _check_head_counts(weights: Weights, model: HieraEncoder) -> None:
    """Compare attention heads, whose number does not show in the shapes of the weights."""
    expected = {"num_heads": model.config.num_heads}
    if (
        isinstance(model, MaskedAutoencoderHiera)
        and "mask_token" in weights.state
        and not _needs_inflation(weights, model)
    ):
        expected["decoder_num_heads"] = model.mae.decoder_num_heads
    for key, heads in expected.items():
        stored = weights.config.get(key)
        if stored is not None and stored != heads:
            raise CheckpointError(
                f"{weights.source}: was made with {key}={stored}, the model has {heads}; make them "
                "equal"
            )


def _needs_inflation(weights: Weights, model: HieraEncoder) -> bool:
    """Return True for image weights and a video model; their decoder is dropped."""
    kernel = weights.state.get("patch_embed.proj.weight")
    return kernel is not None and kernel.ndim < model.patch_embed.proj.weight.ndim


def read_weights(source: str | Path, name: str = "") -> Weights:
    """Read weights without building a model.

    Args:
        source: A file (.safetensors or a torch file); a folder (written by `save_pretrained`,
            downloaded from the hub, a checkpoint, or a run, see `find_checkpoint`);
            `hf-hub:owner/name[@revision]`; a published tag of the model `name` (`mae_k400`); or a
            tag with its model (`hiera_base_224.mae_in1k`).
        name: The model's name, for tags.

    Raises:
        CheckpointError: If the source does not exist, cannot be fetched, or contains no weights.
    """
    text = str(source)
    if text.startswith("hf-hub:"):
        return _read_folder(_hub_folder(text.removeprefix("hf-hub:")), text)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, text)
    if path.is_file():
        return Weights(source=text, state=extract_state_dict(_read_file(path), text))
    address = checkpoint_tags(name).get(text)
    if address is None:
        known = ", ".join(PUBLISHED.get(name, {})) or "none"
        near = get_close_matches(text, checkpoint_tags(name), n=3)
        hint = f"did you mean the tag {' or '.join(near)}?" if near else f"known tags: {known}"
        raise CheckpointError(
            f"{text}: no such file, folder or tag{f' of {name}' if name else ''}; {hint}; "
            "hf-hub:owner/name also works"
        )
    return Weights(source=text, state=extract_state_dict(_read_file(_download(address)), text))


def find_checkpoint(run: Path, which: Literal["best", "last"] | None = None) -> Path:
    """Return the folder of a run's checkpoint.

    Args:
        run: Folder of the run (`out_dir`).
        which: "best" (highest validation metric; lowest loss in pre-training) or "last". By default
            the best, or the last of a run that was never validated.

    Raises:
        CheckpointError: If there is no such checkpoint.
    """
    checkpoints = run / "checkpoints"
    for name in [which] if which else ["best", "last"]:
        if (checkpoints / name).is_dir():
            return checkpoints / name
    if not run.is_dir():
        raise CheckpointError(f"{run}: no such run folder; name another run or a file")
    raise CheckpointError(
        f"{run}: the run has no {f'{which!r} ' if which else ''}checkpoint yet; 'last' is saved "
        "while training, 'best' after validation on data.val; train longer, or name another run or "
        "a file"
    )


def _read_folder(folder: Path, source: str) -> Weights:
    if (folder / "checkpoints").is_dir():
        folder = find_checkpoint(folder)
    return read_through_link(folder, lambda found: _read_files(found, source))


def _read_files(folder: Path, source: str) -> Weights:
    files = _weight_files(folder, source)
    config = read_object(folder / "config.json")
    extras = read_object(folder / "hiera_video.json")
    meta = read_object(folder / "meta.json")
    names = (
        extras.get("class_names")
        or meta.get("class_names")
        or class_names_from_transformers(config)
    )
    if names is not None and not (
        isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    ):
        raise CheckpointError(f"{source}: its class_names are not a list of texts")
    for file in files:
        # checkpoints of runs record the digests of their files
        recorded = as_object(as_object(meta.get("files")).get(file.name)).get("sha256")
        if recorded is not None and recorded != file_sha256(file):
            raise CheckpointError(
                f"{file}: damaged (sha256 differs from the recorded one); use another checkpoint "
                "of the run"
            )
    state = extract_state_dict(reduce(or_, [_read_file(file) for file in files]), source)
    return Weights(
        source=source,
        state=state,
        config=constructor_arguments(config, state, source),
        extras=extras,
        class_names=tuple(names) if names else None,
        multi_label=meta.get("multi_label", extras.get("multi_label")),
    )


def _weight_files(folder: Path, source: str) -> list[Path]:
    """Return the file of the weights, or the parts that an index lists."""
    if (folder / _INDEX).is_file():
        names = sorted(
            {
                str(name)
                for name in as_object(read_object(folder / _INDEX).get("weight_map")).values()
            }
        )
        missing = [
            name for name in names if Path(name).name != name or not (folder / name).is_file()
        ]
        if missing or not names:
            raise CheckpointError(
                f"{folder / _INDEX}: lists {', '.join(missing)}, missing from the folder; copy the "
                "whole folder"
                if missing
                else f"{folder / _INDEX}: lists no files; copy the whole folder"
            )
        return [folder / name for name in names]
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{source}: contains none of {', '.join(_FILES)}, and is not a run folder (no "
            "checkpoints/)"
        )
    return [file]


def _read_file(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        check_stored(path)
        return load_torch_file(path)
    except Exception as error:  # safetensors, zip and the unpickler each raise their own types
        raise CheckpointError(
            f"{path}: cannot be read ({_one_line(error)}); it is damaged, or contains objects that "
            "cannot be skipped; save its state dict alone, preferably as .safetensors"
        ) from error


def _hub_folder(repository: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"hf-hub:{repository}: needs huggingface_hub; pip install 'hiera-video[hub]'"
        ) from error
    name, _, revision = repository.partition("@")
    try:
        patterns = ["*.json", *_FILES, "model-*.safetensors"]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # network, HTTP and validation errors of three libraries
        raise CheckpointError(
            f"hf-hub:{repository}: cannot be fetched ({_one_line(error)}); download "
            f"https://huggingface.co/{name} on another machine and pass the folder's path"
        ) from error


def _one_line(error: Exception) -> str:
    """Return the first line of a message, without terminal codes and torch's advice to unpickle."""
    text = str(error).strip()
    text = text.partition("\n\nCheck the documentation")[0]
    fact = text.partition("WeightsUnpickler error: ")[2] or text.rpartition("\n\n")[2]
    text = fact.partition(" was not an")[0] or text
    message = _TERMINAL_CODE.sub("", text.strip().partition("\n")[0])
    return f"{type(error).__name__}: {printable(message)[:MAX_NAMES] or 'no details'}"


def _download(address: str) -> Path:
    """Download a published file to torch.hub's cache unless it is there.

    The authors publish no digests, so the sha256 of the first download is recorded beside the file
    and checked from then on.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[1]
    if not path.is_file():
        logger.info("downloading %s to %s", address, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path))
        except OSError as error:  # includes urllib's errors
            raise CheckpointError(
                f"{address}: cannot be downloaded ({error}); download it on another machine and "
                f"copy it to {path}"
            ) from error
    record = path.with_name(path.name + ".sha256")
    digest = file_sha256(path)
    if not record.is_file():
        write_atomic(record, digest + "\n", shared=True)
    elif record.read_text().strip() != digest:
        raise CheckpointError(
            f"{path}: has changed since it was downloaded; delete it and {record.name} to download "
            "it again"
        )
    return path
