"""The plan of a training: minutes turned into steps, and the learning rate along them (lessons 00 and 07)."""

import math
from itertools import pairwise
from statistics import median

from ..arguments import number

SKIPPED = 3  # the first steps are slower than the rest
MEASURED_SECONDS = 10.0  # then this long is timed, or a tenth of the budget if that is less
MEASURED_TIMES = 500  # and no more than so many times, however fast a step is
WARMUP = 50  # steps over which the learning rate rises
RECENT = 5  # times that a later look at the plan is based on, at least


def learning_rate(step: int, steps: int | None, peak: float) -> float:
    """The rate of step 0, 1, …: rises over WARMUP steps, then follows half a cosine down to 0 at `steps`."""
    if step < WARMUP or steps is None:
        return peak * min(1.0, (step + 1) / WARMUP)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


class Budget:
    """How many steps fit into some minutes.

    The first steps are timed, and the median of their times makes the plan: a moment in which the machine was busy
    does not count. Whenever another tenth of the minutes is gone the plan is looked at again, and changed if it is
    off by more than a twentieth; so a machine that becomes slower, or was slow at the start only, still keeps the time.
    """

    def __init__(self, minutes: float, step: int = 0):
        self.seconds = 60 * number("minutes", minutes, 0, above=True)
        self.first = step + SKIPPED
        self.marks: list[tuple[int, float]] = []  # (step, seconds spent in steps), at moments when no device is behind
        self.tenths = 0  # of the budget, gone when the plan was last looked at
        self.pace = float("nan")  # seconds a step, behind the latest plan

    def plan(self, step: int, spent: float, steps: int | None) -> int | None:
        """The number of steps to aim at, after `step` of them took `spent` seconds; None: measuring goes on.

        steps: the plan so far, None while measuring
        """
        if step >= self.first:
            self.marks.append((step, spent))
        tenths = int(10 * spent / self.seconds)
        due = self._measured(spent) if steps is None else tenths > self.tenths
        if not due:
            return steps
        self.tenths = tenths
        times = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(self.marks)]
        self.pace = median(times or [spent / step])  # no times: the minutes were gone before any could be taken
        self.marks = self.marks[-RECENT:]
        fits = step + max(step // 20, round((self.seconds - spent) / self.pace))  # always some for the rate to fall
        return fits if steps is None or abs(fits - steps) > 0.05 * steps else steps

    def _measured(self, spent: float) -> bool:
        """Whether enough steps have been timed for a first plan, or there is no time for more."""
        timed = spent - self.marks[0][1] if self.marks else 0.0
        long_enough = timed >= min(MEASURED_SECONDS, self.seconds / 10) or len(self.marks) > MEASURED_TIMES
        return spent >= self.seconds or (long_enough and len(self.marks) > 3)
