"""Save a model as a folder: safetensors, `config.json`, class names and a model card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.models.build import build_model
from hiera_video.models.hiera import HieraEncoder
from hiera_video.models.layout import HieraConfig
from hiera_video.models.lora import merge_adapters
from hiera_video.models.macs import count_parameters
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.weights.transformers_names import (
    rename_to_transformers,
    transformers_config,
)
from hiera_video.utils.atomic_files import atomic_path, write_atomic
from hiera_video.utils.text_files import count_of

_EXTRA_KEYS = ("init",)  # unknown to hiera-transformer's constructor
DECODER_KEYS = ("decoder_embed_dim", "decoder_depth", "decoder_num_heads")
_OTHER_CLASS = {
    "hiera-transformer": ("Hiera", "MaskedAutoencoderHiera"),
    "transformers": ("HieraForImageClassification", "HieraForPreTraining"),
}
"""Library → its classifier and its autoencoder."""

_CARD = """---
library_name: hiera-video
tags: [hiera, {tag}]
---
# {title}

{what}, input {size} ({axes}), {parameters:.1f} M parameters.

```python
import hiera_video as hv

model = hv.from_pretrained("{folder}")
```
{elsewhere}
**Licence.** This card sets no licence for the weights; whoever publishes them must. Weights derived
from the authors' checkpoints are CC BY-NC 4.0, as those are; hiera-video's code is Apache-2.0. The
licence of the training data may apply as well.
"""


def save_pretrained(
    model: HieraEncoder,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    multi_label: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    library: Literal["hiera-transformer", "transformers"] = "hiera-transformer",
) -> Path:
    """Save a model in a folder that `from_pretrained` and another library load.

    Writes `model.safetensors`, `config.json`, `hiera_video.json` (class names and settings that
    only this package has) and a model card. `LoadedRun.save` passes what the run knows.

    Args:
        model: A `Hiera` or `MaskedAutoencoderHiera`; adapters are added to its weights.
        folder: Created if missing; existing files of these names are replaced.
        class_names: One name for each class of the head.
        multi_label: True if a video may have several of the classes; None if unknown.
        settings: Clips, views and normalisation of a test by their keys, such as
            `{"clip.sampling": "segments"}`, which `load` restores.
        library: The other library that loads the folder, by its names of parameters and of the
            keys in `config.json`. `transformers` has image models only.

    Returns:
        The folder.

    Raises:
        CheckpointError: If the number of names is not the number of classes, parts of the model
            were replaced, the other library has no such model, or the folder cannot be written.
    """
    if library not in ("hiera-transformer", "transformers"):
        raise CheckpointError(f"library={library!r}: choose hiera-transformer or transformers")
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    if not isinstance(model, HieraEncoder):
        raise CheckpointError(
            f"{type(model).__name__}: is no model of hiera-video; pass the model that it wraps, as "
            "model.module"
        )
    if library == "transformers" and type(model.config) is not HieraConfig:
        raise CheckpointError(
            "library='transformers': has Hiera alone; save mvitv2_…, ladder_… and vit_… without it"
        )
    is_mae = isinstance(model, MaskedAutoencoderHiera)
    classes = model.config.num_classes
    if class_names is not None and (is_mae or len(class_names) != classes):
        raise CheckpointError(
            f"{count_of(len(class_names), 'class name')} for "
            f"{'no head' if is_mae else count_of(classes, 'class')}"
        )
    extras = {
        "kind": "mae" if is_mae else "classifier",
        "class_names": list(class_names) if class_names is not None else None,
        "multi_label": multi_label,
        "settings": dict(settings) if settings is not None else None,
        "init": model.config.init,
        "mae": dataclasses.asdict(model.mae) if isinstance(model, MaskedAutoencoderHiera) else None,
    }
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in merge_adapters(model.state_dict()).items()
    }
    _require_rebuildable(model, state)
    arguments = _constructor_arguments(model)
    if library == "transformers":
        mae = model.mae if isinstance(model, MaskedAutoencoderHiera) else None
        names = tuple(class_names) if class_names is not None else None
        arguments = transformers_config(model.config, mae, names)
        state = rename_to_transformers(state, model.config)
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with atomic_path(target / "model.safetensors") as partial:
            save_file(state, partial, metadata={"format": "pt"})
        write_atomic(target / "config.json", _as_json(arguments))
        write_atomic(target / "hiera_video.json", _as_json(extras))
        write_atomic(target / "README.md", _card(model, target.name, library))
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        raise CheckpointError(f"{target}: cannot be written ({error})") from error
    return target


def _require_rebuildable(model: HieraEncoder, state: Mapping[str, Tensor]) -> None:
    """Refuse a model of replaced parts, which its configuration does not describe."""
    with torch.device("meta"):
        mae = model.mae if isinstance(model, MaskedAutoencoderHiera) else None
        expected = build_model(model.config, mae).state_dict()
    for name in sorted(state.keys() | expected.keys()):
        ours, other = (
            list(found[name].shape) if name in found else "missing" for found in (state, expected)
        )
        if ours != other:
            raise CheckpointError(
                f"{name}: is {ours} in the model and {other} by its configuration, so the folder "
                "could not be loaded; change the number of classes by model.reset_classifier(N), "
                "or save a model of other parts by torch.save(model.state_dict(), FILE)"
            )


def _as_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _constructor_arguments(model: HieraEncoder) -> dict[str, Any]:
    arguments = {
        key: value
        for key, value in dataclasses.asdict(model.config).items()
        if key not in _EXTRA_KEYS
    }
    arguments |= {"dim_mul": 2.0, "head_mul": 2.0}
    if isinstance(model, MaskedAutoencoderHiera):
        # without norm_layer: hiera-transformer's autoencoder would try to call the string
        return arguments | {key: getattr(model.mae, key) for key in DECODER_KEYS}
    return arguments | {"norm_layer": "LayerNorm"}


def _card(model: HieraEncoder, folder: str, library: str) -> str:
    is_mae, config = isinstance(model, MaskedAutoencoderHiera), model.config
    video = len(config.input_size) == 3
    classes = (
        f"Classifier of {count_of(config.num_classes, 'class')}"
        if config.num_classes
        else "Encoder without a classifier"
    )
    what = "Masked autoencoder" if is_mae else classes
    other = _OTHER_CLASS[library][is_mae]
    has_heads = not isinstance(model, MaskedAutoencoderHiera) or model.mae.multi_scale
    elsewhere = f'The folder also loads in `{library}`: `{other}.from_pretrained("{folder}")`.\n'
    return _CARD.format(
        tag="video-classification" if video else "image-classification",
        title=folder,
        folder=folder,
        what=what,
        size=" x ".join(map(str, config.input_size)),
        axes="frames, height, width" if video else "height, width",
        parameters=count_parameters(model) / 1e6,
        elsewhere=elsewhere if type(config) is HieraConfig and has_heads else "",
    )
