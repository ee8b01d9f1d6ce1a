"""Which times a sampler visits (lessons 06 and 09): from noise at T down to data at 0, all of them or a few."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .arguments import whole


def spaced_timesteps(T: int, steps: int | None = None, spacing: str | Tensor = "trailing") -> list[int]:
    """`steps` + 1 times, falling to 0; the network is asked at all but the last.

    spacing: one of the three conventions of Lin et al. (2024), table 2, counted from 1 as everywhere in the course,
             "trailing": T, ..., T/steps, as even as integers allow
             "linspace": T, ..., 1, and with a single step 1 alone
             "leading":  1 + (steps - 1) * d, ..., 1 + d, 1 with d = T // steps, which never starts at T
             or a (T+1,) table that rises or falls with t, such as log-SNR: times that are even in it, from T to 0, or
             to 1 and then 0 where its entry 0 is infinite; where two would be the same integer, they move apart.
             It must be finite at T, which log-SNR is not with zero_snr
    raises   ValueError unless 1 <= steps <= T and spacing is one of these
    """
    T = whole("T", T, 1)
    steps = T if steps is None else whole("steps", steps, 1, T, ", as many as the schedule has")
    if isinstance(spacing, Tensor):
        return _even_in(spacing, T, steps)
    if spacing == "trailing":
        return [round(T * (steps - i) / steps) for i in range(steps + 1)]
    if spacing == "linspace":
        return [1 + round((T - 1) * (steps - 1 - i) / max(steps - 1, 1)) for i in range(steps)] + [0]
    if spacing == "leading":
        return [1 + (steps - 1 - i) * (T // steps) for i in range(steps)] + [0]
    raise ValueError(f"spacing must be trailing, linspace, leading or a table over t, got {spacing!r}")


def _even_in(table: Tensor, T: int, steps: int) -> list[int]:
    first = 1 if table.shape == (T + 1,) and table[0].isinf() else 0
    gaps = table[first:].double().diff()
    if table.shape != (T + 1,) or not (bool((gaps > 0).all()) or bool((gaps < 0).all())):
        raise ValueError(f"a table for spacing must have shape ({T + 1},) and rise or fall all the way with t")
    if table[T].isinf():
        raise ValueError("a table for spacing must be finite at T: log-SNR is not, where SNR is 0; the angle is")
    wanted = torch.linspace(float(table[T]), float(table[first]), steps + 1 - first, dtype=torch.float64)
    nearest = (table[first:].double() - wanted[:, None]).abs().argmin(1) + first
    times = nearest.tolist() + [0] * first
    times[0] = T
    for i in range(1, steps):  # apart from the one before, and room for those that follow
        times[i] = max(min(times[i], times[i - 1] - 1), steps - i)
    return times


def falling_times(T: int, steps: int | None, times: Sequence[int] | None) -> list[int]:
    """What a sampler visits: `times` where they are given, evenly spaced ones where they are not.

    raises ValueError unless they are whole numbers that fall from at most T to 0
    """
    times = spaced_timesteps(T, steps) if times is None else [whole("every one of times", t, 0, T) for t in times]
    if len(times) < 2 or times[-1] != 0 or not all(t > s for t, s in pairwise(times)):
        raise ValueError(f"times must fall from at most {T} to 0, got {times}")
    return times
