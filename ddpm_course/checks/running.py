"""Runs a student's function on one case and leaves no trace: the ground under every check.

Arguments are made anew for each call, and the process's random state, grad mode and default dtype are put
back. What the call did besides returning a value (raise, draw numbers, change an argument) is recorded.
"""

import contextlib
import copy
import functools
import inspect
import io
import os
import random
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..exercises.records import Betas, Case, Seed
from ..schedules import Schedule


@dataclass
class Outcome:
    """What one call did."""

    value: Any = None
    error: BaseException | None = None
    where: str | None = None  # "line 3 of your cell", if the error passed through the student's code
    changed: tuple[str, ...] = ()  # names of the arguments that are not as they were
    drew: bool = False  # did it take from the global random state?
    idle_generator: bool = False  # was it given a generator and never used it?
    printed: str = ""

    @property
    def complaint(self) -> str:
        """The error in one line, with the student's line number where there is one."""
        lines = str(self.error).strip().splitlines()
        message = f": {lines[0][:200]}" if lines and self.error.args != (None,) else ""
        return f"{self.where or 'your function'} raises {type(self.error).__name__}{message}"


def run(function: Callable, case: Case, names: tuple[str, ...], schedule_class: type = Schedule) -> Outcome:
    """Call function on a case. Only KeyboardInterrupt gets out."""
    args, before = (_fresh(case.args, schedule_class) for _ in range(2))
    outcome, printed = Outcome(), io.StringIO()
    with untouched(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning goes to standard error, and nbgrader gives 0 for that
        _seed()
        start = _random_state()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                value = case.use(function, *args) if case.use else function(*args)
                outcome.value = value if value is None or case.result is None else case.result(args, value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a student's exit() must not end the kernel
            outcome.where = _where(error.__traceback__, function)
            outcome.error = error.with_traceback(None)  # frames would keep the tensors of this call alive
        outcome.drew = _random_state() != start
    outcome.printed = printed.getvalue()
    outcome.changed = tuple(
        name
        for name, a, b in zip(names, args, before, strict=False)
        if name not in case.may_change and not same_argument(a, b)
    )
    generators = [(a, b) for a, b in zip(args, before, strict=True) if isinstance(a, torch.Generator)]
    outcome.idle_generator = any(torch.equal(a.get_state(), b.get_state()) for a, b in generators)
    return outcome


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Put back what a function could change in the process: random states, grad mode, default dtype and device."""
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    grad, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
    deterministic = torch.are_deterministic_algorithms_enabled()
    errors = np.geterr()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)
        np.seterr(**errors)


def home(function: Callable) -> types.FunctionType | None:
    """The Python function behind a callable: what a decorator, a partial, a method or an instance wraps."""
    for _ in range(20):
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif isinstance(function, types.FunctionType):
            return function
        elif isinstance(function, torch.nn.Module):
            function = type(function).forward
        else:
            function = inspect.getattr_static(type(function), "__call__", None)
    return None


def instance(function: Any) -> Any:
    """An instance, if function is a class that can be made without arguments and then called."""
    if isinstance(function, type) and "__call__" in dir(function):
        try:
            return function()
        except Exception:
            return function
    return function


def _fresh(args: tuple, schedule_class: type) -> tuple:
    memo = {}  # shared: a copied optimizer must find the copied network's weights

    def new(value):
        if isinstance(value, Betas):
            return schedule_class(torch.tensor(value.values, dtype=torch.float64, device="cpu"))
        if isinstance(value, Seed):
            return torch.Generator(device="cpu").manual_seed(value.value)
        if isinstance(value, torch.nn.Module | torch.optim.Optimizer | list):
            return copy.deepcopy(value, memo)
        return value.clone() if isinstance(value, torch.Tensor) else value

    return tuple(new(value) for value in args)


def same_argument(a: Any, b: Any) -> bool:
    """Are two arguments alike: the same values in tensors, tables, and weights; the same mode of a network?"""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        if type(a) is not type(b):
            return False
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, torch.nn.Module):
        mine, theirs = a.state_dict(), b.state_dict()
        same = mine.keys() == theirs.keys() and all(same_argument(mine[name], theirs[name]) for name in mine)
        return same and [m.training for m in a.modules()] == [m.training for m in b.modules()]
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_argument, a, b))
    if hasattr(a, "alpha_bar"):  # a schedule: its tables are what everything else is made from
        return a.T == b.T and all(same_argument(getattr(a, n), getattr(b, n)) for n in ("beta", "alpha", "alpha_bar"))
    return True


def _seed() -> None:
    """The same global random state before every call, so that a function that draws from it can be recognised."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed would queue a call for a GPU that is not up yet
    np.random.seed(0)
    random.seed(0)


def _random_state() -> tuple:
    name, keys, position, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), keys.tobytes(), position, *rest, random.getstate()


def _where(trace: types.TracebackType | None, function: Callable) -> str | None:
    """The deepest line of the traceback that the student wrote, in words."""
    wrote = home(function)
    if wrote is None:
        return None
    own = [f for f in traceback.walk_tb(trace) if f[0].f_globals is wrote.__globals__]  # a notebook is one namespace
    if not own:
        return None
    frame, line = own[-1]
    path, name = frame.f_code.co_filename, frame.f_code.co_name
    if path == "<timed exec>":
        line += 1  # IPython compiles what stands below the %%time line
    if os.path.exists(path) and "ipykernel_" not in path:
        return f"line {line} of {os.path.basename(path)}"
    if path == wrote.__code__.co_filename:
        return f"line {line} of your cell"
    return f"line {line} of the cell that defines {name}"
