"""What a call leaves behind in the process and in its arguments: put back, and told."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SEED = 200611239  # none that a student would choose: who seeds is told from who draws


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Put back what a function could change in the process: random states, grad mode, default dtype and device."""
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    grad, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
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
        torch.set_num_threads(threads)
        np.seterr(**errors)


def random_state() -> tuple:
    name, keys, position, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), keys.tobytes(), position, *rest, random.getstate()


@dataclass
class Traces:
    """What a call did to the process, which every later cell of a notebook would find.

    drew:  it took from the global random numbers
    left:  what is not as it was: "seed", "gradients", "dtype", "device", "deterministic"
    """

    drew: bool = False
    left: tuple[str, ...] = ()


@contextlib.contextmanager
def traces() -> Iterator[Traces]:
    """Watch a block, which finds the same global random state each time. What it did is known when it ends."""
    torch.default_generator.manual_seed(SEED)  # torch.manual_seed would queue a call for a GPU that is not up yet
    np.random.seed(SEED)
    random.seed(SEED)
    found, seeded, before, start = Traces(), [], _settings(), random_state()
    try:
        with _noting(np.random, seeded), _noting(random, seeded):
            yield found
    finally:
        found.drew, after = random_state() != start, _settings()
        found.left = tuple(name for name in before if after[name] != before[name])
        if seeded and found.drew and "seed" not in found.left:
            found.left += ("seed",)


@contextlib.contextmanager
def _noting(module: ModuleType, calls: list[ModuleType]) -> Iterator[None]:
    """Note calls of a module's `seed`, of which its random state tells nothing; torch's state holds the last seed."""
    seed = module.seed

    def noting(*args: Any, **kwargs: Any) -> Any:
        calls.append(module)
        return seed(*args, **kwargs)

    module.seed = noting
    try:
        yield
    finally:
        module.seed = seed


def _settings() -> dict[str, Any]:
    return {
        "seed": torch.initial_seed(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def difference(before: Any, after: Any, may_change: bool = False) -> str | None:
    """How an argument differs from what it was; None if it does not.

    may_change: the values may: a network that is trained changes its weights, but neither its mode nor what is trained
    returns     "values", "entries" of a list, "tables" of a schedule, "weights", "mode" or "frozen" for a network
    """
    if isinstance(before, nn.Module):
        if [m.training for m in before.modules()] != [m.training for m in after.modules()]:
            return "mode"
        if [p.requires_grad for p in before.parameters()] != [p.requires_grad for p in after.parameters()]:
            return "frozen"
        same = may_change or same_argument(before, after)
        return None if same else "weights"
    if may_change or same_argument(before, after):
        return None
    if isinstance(before, list) and not (len(before) == len(after) and isinstance(before[0], Tensor)):
        return "entries"
    return "tables" if hasattr(before, "alpha_bar") else "values"


def same_argument(a: Any, b: Any) -> bool:
    """Are two arguments alike: the same values in tensors, tables, and weights; the same mode of a network?"""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if type(a) is not type(b):
            return False
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, nn.Module):
        mine, theirs = a.state_dict(), b.state_dict()
        same = mine.keys() == theirs.keys() and all(same_argument(mine[name], theirs[name]) for name in mine)
        return same and [m.training for m in a.modules()] == [m.training for m in b.modules()]
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_argument, a, b))
    if hasattr(a, "alpha_bar"):  # a schedule: its tables are what everything else is made from
        return a.T == b.T and all(same_argument(getattr(a, n), getattr(b, n)) for n in ("beta", "alpha", "alpha_bar"))
    return a == b if isinstance(a, int | float | str) else True


def state_of(argument: Any) -> Any:
    """What a right answer leaves in a generator or an optimizer, in a form that can be compared; else None."""
    if isinstance(argument, torch.Generator):
        return argument.get_state().numpy().tobytes()
    if isinstance(argument, torch.optim.Optimizer):
        kept = argument.state_dict()
        kinds = {number: sorted(state) for number, state in kept["state"].items()}
        return kinds, kept["param_groups"]
    return None
