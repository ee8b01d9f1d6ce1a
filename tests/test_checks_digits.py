"""No diagnosis hangs on the last digits of a processor: each typed mistake keeps its name when they are shaken."""

import functools

import pytest
import test_checks_diagnosis
import test_checks_lesson03
import test_checks_lesson04
import test_checks_lesson05
import test_checks_lesson06
import test_checks_lesson08
import torch
import typed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

TABLES = [
    *(test_checks_diagnosis, test_checks_lesson03, test_checks_lesson04, test_checks_lesson05),
    *(test_checks_lesson06, test_checks_lesson08),
]
# What instruction sets round differently: library functions, and sums whose order they choose. + - * / are exact.
INEXACT = """
    exp expm1 log log1p log2 log10 pow sin cos tan tanh sigmoid erf erfc special_ndtr special_log_ndtr logit silu
    sum mean prod cumsum cumprod var std linalg_vector_norm mm bmm addmm baddbmm dot mv convolution native_group_norm
    _softmax _log_softmax logsumexp mse_loss smooth_l1_loss huber_loss hypot _linalg_eigh _linalg_svd linspace
"""


class Shaken(TorchDispatchMode):
    """Moves the results of such functions by up to two units in the last place, and leaves 0 and ±1 as they are."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        return tree_map(self.shake, result) if operation._schema.name.split("::")[1] in INEXACT.split() else result

    def shake(self, x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            return x
        units = torch.randint(-1, 2, x.shape, generator=self.generator).to(x.dtype)
        exact = (x == 0) | (x.abs() == 1) | ~x.isfinite()
        return torch.where(exact, x, x * (1 + units * torch.finfo(x.dtype).eps))


def shaken(function):
    @functools.wraps(function)
    def run(*args):
        with Shaken():
            return function(*args)

    return run


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__.removeprefix("test_checks_"))
def test_a_mistake_keeps_its_name_whatever_the_last_digits(table, monkeypatch):
    plain = typed.typed
    monkeypatch.setattr(typed, "typed", lambda *cell, **defined: shaken(plain(*cell, **defined)))
    verdicts = [(mistake, table.judge(name, body)) for name, body, mistake in table.WRONG]
    assert not [(mistake, verdict.text) for mistake, verdict in verdicts if verdict.mistake != mistake]
