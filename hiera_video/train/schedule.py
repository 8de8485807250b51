"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def lr_at(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int,
    peak: float,
    start: float,
    end: float,
    cosine_after_warmup: bool = True,
) -> float:
    """Rate of step `step` (0 … total_steps - 1): linear from `start` to `peak`, then half a cosine to `end`.

    The cosine begins where the warm-up ends, as in PySlowFast's recipes of masked pre-training, of fine-tuning from it and of
    Something-Something (`COSINE_AFTER_WARMUP: True`):

        peak ┤    .-‾-.
             │   /     ‾-.
             │  /         ‾-._
       start ┤ /              ‾‾ end
             └───┴──────────────┴
               warmup_steps  total_steps

    Without `cosine_after_warmup` (PySlowFast's default) it runs over all steps, and the warm-up replaces its beginning: it ends
    a little below `peak`.
    """
    first = warmup_steps if cosine_after_warmup else 0

    def cosine(at: int) -> float:
        turned = math.pi * (at - first) / max(total_steps - first, 1)
        return end + (peak - end) * (math.cos(turned) + 1) / 2

    if step < warmup_steps:
        return start + (cosine(warmup_steps) - start) * step / warmup_steps
    return cosine(step)
