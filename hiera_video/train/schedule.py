"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def lr_at(step: int, *, total_steps: int, warmup_steps: int, peak: float, start: float, end: float) -> float:
    """Rate of step `step` (0 … total_steps - 1): linear from `start` to `peak`, then half a cosine to `end`.

    The cosine begins where the warm-up ends, as in PySlowFast's recipes of masked pre-training, of fine-tuning from it and of
    Something-Something (`COSINE_AFTER_WARMUP: True`):

        peak ┤    .-‾-.
             │   /     ‾-.
             │  /         ‾-._
       start ┤ /              ‾‾ end
             └───┴──────────────┴
               warmup_steps  total_steps
    """
    if step < warmup_steps:
        return start + (peak - start) * step / warmup_steps
    if warmup_steps == total_steps:
        return peak
    done = (step - warmup_steps) / (total_steps - warmup_steps)
    return end + (peak - end) * (math.cos(math.pi * done) + 1) / 2
