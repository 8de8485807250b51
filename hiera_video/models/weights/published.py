"""Published weights of the authors (CC BY-NC 4.0): tags and addresses by model name."""

from __future__ import annotations

_SERVER = "https://dl.fbaipublicfiles.com/hiera"
_VIDEO = ("base", "base_plus", "large", "huge")
_IMAGE = ("tiny", "small", "base", "base_plus", "large", "huge")


def _published() -> dict[str, dict[str, str]]:
    tags: dict[str, dict[str, str]] = {}
    for sizes, shape, data in ((_VIDEO, "16x224", "k400"), (_IMAGE, "224", "in1k")):
        for size in sizes:
            name = f"hiera_{size}_{shape}"
            pretrained = {f"mae_{data}": f"{_SERVER}/mae_{name}.pth"}
            tags[name] = {f"mae_{data}_ft_{data}": f"{_SERVER}/{name}.pth", **pretrained}
            tags[f"mae_{name}"] = pretrained
    return tags


PUBLISHED = _published()
"""Model name → tag → address."""


def default_tag(name: str) -> str | None:
    """Return the tag of the model's published weights, fine-tuned ones for a classifier.

    >>> default_tag("hiera_base_16x224"), default_tag("mae_hiera_base_16x224")
    ('mae_k400_ft_k400', 'mae_k400')
    >>> default_tag("hiera_micro_16x32")
    """
    return next(iter(PUBLISHED.get(name, {})), None)


def checkpoint_tags(name: str = "") -> dict[str, str]:
    """Return the accepted tags and their addresses.

    Tags of the model `name` come first and without the name (`mae_k400`); every model's tags follow
    in full (`hiera_base_224.mae_in1k`), as the Hugging Face hub spells them.
    """
    full = {
        f"{model}.{tag}": address
        for model, tags in PUBLISHED.items()
        for tag, address in tags.items()
    }
    return PUBLISHED.get(name, {}) | full
