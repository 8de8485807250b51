"""What tests of several folders build on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hiera_video.models.hiera import Hiera
from hiera_video.models.zoo import create_model


@pytest.fixture(scope="session")
def answering_model() -> Callable[[], Hiera]:
    """Makes a micro Hiera of three classes whose answers depend on what is seen: a fresh head is scaled to almost nothing."""

    def make() -> Hiera:
        torch.manual_seed(0)
        model = create_model("hiera_micro_16x32", num_classes=3)
        assert isinstance(model, Hiera)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.1)
        return model

    return make
