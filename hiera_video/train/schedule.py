"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def lr_at(step: int, *, total_steps: int, warmup_steps: int, peak: float, start: float, end: float) -> float:
    """Rate of step `step` (0 … total_steps - 1): linear from `start` to `peak`, then half a cosine to `end`.

    The cosine runs over all steps and the warm-up replaces its beginning, as in PySlowFast's `lr_policy`:

        peak ┤   .-‾‾-.
             │  /      ‾-.
             │ /          ‾-._
       start ┤/               ‾‾ end
             └──┴─────────────────┴
              warmup_steps     total_steps
    """

    def cosine(at: int) -> float:
        return end + (peak - end) * (math.cos(math.pi * at / total_steps) + 1) / 2

    if step < warmup_steps:
        return start + (cosine(warmup_steps) - start) * step / warmup_steps
    return cosine(step)
