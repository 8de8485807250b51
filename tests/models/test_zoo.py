from __future__ import annotations

import torch

from hiera_video.models.layout import list_names
from hiera_video.models.zoo import create_model, list_models


def test_list_models():
    assert list_models("hiera_*_16x224") == [
        f"hiera_{size}_16x224" for size in ("tiny", "small", "base", "base_plus", "large", "huge")
    ]
    assert list_models("mae_*large*") == ["mae_hiera_large_16x224", "mae_hiera_large_224"]
    assert list_models() == list(list_names())


def test_every_name_can_be_built():
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name, pretrained="none")
        assert model.config.input_size[-1] in (32, 224)


def test_the_package_names_are_lazy_and_complete():
    import hiera_video.models as models

    for name in models.__all__:
        assert getattr(models, name) is not None
