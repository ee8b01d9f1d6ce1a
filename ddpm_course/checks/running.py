"""Runs a student's function on one case and leaves no trace: the ground under every check.

Arguments are made anew for each call, and what belongs to the process is put back (`traces`). What the call did besides
returning a value (raise, draw numbers, change an argument) is recorded.
"""

import contextlib
import copy
import functools
import inspect
import io
import os
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from ..exercises.records import Betas, Case, Seed
from ..schedules import Schedule
from .calls import noted
from .limits import TooLong, at_most
from .traces import difference, same_argument, state_of, traces, untouched


class Parts(dict):
    """Results by name, {"mean": ..., "variance": ...}, as a case makes them; a dict that a student returns is none."""


@dataclass
class Outcome:
    """What one call did."""

    value: Any = None
    error: BaseException | None = None
    where: str | None = None  # "line 3 of your cell", if the error passed through the student's code
    endless: str | None = None  # its name in the notebook, if it called itself until Python gave up
    changed: dict[str, str] = field(default_factory=dict)  # arguments that are not as they were, and how: `difference`
    drew: bool = False  # did it take from the global random state?
    left: tuple[str, ...] = ()  # settings of the process that are not as they were
    states: dict[str, Any] = field(default_factory=dict)  # of generators and optimizers, after the call
    unused: tuple[str, ...] = ()  # the names of those that are in the state they came in
    calls: list | None = None  # of networks and optimizers that it is given (`calls.noted`), if known
    printed: str = ""
    seconds: float = 0.0  # of computing

    @property
    def complaint(self) -> str:
        """The error in one line, with the student's line number where there is one."""
        where = self.where or "your function"
        if isinstance(self.error, TooLong):
            return (
                f"{where} was still running after {self.seconds:.0f} s of computing. Is there a loop that does not end?"
            )
        if self.endless:
            return f"{where} calls your own function again, without an end: `{self.endless}` means it from now on"
        lines = str(self.error).strip().splitlines()
        message = f": {lines[0][:200]}" if lines and self.error.args != (None,) else ""
        return f"{where} raises {type(self.error).__name__}{message}"


def run(
    function: Callable,
    case: Case,
    names: tuple[str, ...],
    schedule_class: type = Schedule,
    *,
    bound_to: str | None = None,
    seconds: float = float("inf"),
) -> Outcome:
    """Call function on a case, in one thread: more are slower on small tensors. Only KeyboardInterrupt gets out.

    bound_to: the name that the notebook will have for the function, and that it has during the call
    seconds:  of computing, after which the function is ended
    """
    args, before = (_fresh(case.args, schedule_class) for _ in range(2))
    outcome, printed, start = Outcome(), io.StringIO(), time.process_time()
    given, outcome.calls = noted(names, args)
    with untouched(), warnings.catch_warnings(), _bound(function, bound_to), traces() as found:
        warnings.simplefilter("ignore")  # a warning goes to standard error, and nbgrader gives 0 for that
        torch.set_num_threads(1)
        try:
            ended = at_most(seconds) if seconds < float("inf") else contextlib.nullcontext()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()), ended:
                value = case.use(function, *given) if case.use else function(*given)
                value = plain_tensor(value) if isinstance(value, torch.Tensor) else value
                made = value if value is None or case.result is None else case.result(args, value)
                ours = isinstance(made, dict) and (case.use or made is not value)
                outcome.value = Parts(made) if ours else made
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a student's exit() must not end the kernel
            outcome.where = _where(error.__traceback__, function)
            if isinstance(error, RecursionError) and _calls_itself(error.__traceback__, function):
                outcome.endless = bound_to
            outcome.error = error.with_traceback(None)  # frames would keep the tensors of this call alive
        outcome.seconds = time.process_time() - start
    outcome.printed, outcome.drew, outcome.left = printed.getvalue(), found.drew, found.left
    for name, old, new in zip(names, before, args, strict=False):
        if how := difference(old, new, name in case.may_change):
            outcome.changed[name] = how
        if (state := state_of(new)) is not None:
            outcome.states[name] = state
            outcome.unused += (name,) * (state == state_of(old))
    return outcome


def plain_tensor(value: torch.Tensor) -> torch.Tensor:
    """The same numbers without a subclass's own ideas of what == and + are."""
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(torch.Tensor)


@contextlib.contextmanager
def _bound(function: Callable, name: str | None) -> Iterator[None]:
    """Let the notebook's `name` mean the function, as it will once the check has returned it."""
    wrote = home(function) if name else None
    namespace = wrote.__globals__ if wrote else {}
    before = {name: namespace[name]} if name in namespace else {}
    namespace[name] = function
    try:
        yield
    finally:
        namespace.pop(name, None)
        namespace.update(before)


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


def _calls_itself(trace: types.TracebackType | None, function: Callable) -> bool:
    """Does it do so with what it was given, again and again? An answer for x[1:] comes to an end."""
    code = getattr(home(function), "__code__", None)
    frames = [frame for frame, _ in traceback.walk_tb(trace) if frame.f_code is code]
    if len(frames) <= 10:
        return False
    *_, caller, called, _ = frames  # both have got as far as the next call
    n = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    return all(same_argument(caller.f_locals.get(name), called.f_locals.get(name)) for name in code.co_varnames[:n])


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
