"""No diagnosis hangs on the last digits of a processor: each typed mistake keeps its name when they are shaken."""

import functools

import pytest
import torch
import typed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ddpm_course import checks

# What instruction sets round differently: library functions, and sums whose order they choose. + - * / are exact.
INEXACT = """
    exp expm1 log log1p log2 log10 pow sin cos tan tanh sigmoid erf erfc special_ndtr special_log_ndtr logit silu
    sum mean prod cumsum cumprod var std linalg_vector_norm mm bmm addmm baddbmm dot mv convolution native_group_norm
    _softmax _log_softmax logsumexp mse_loss smooth_l1_loss huber_loss hypot _linalg_eigh _linalg_svd linspace
"""


class Shaken(TorchDispatchMode):
    """Moves the results of such functions by up to a unit or two in the last place, and leaves 0 and ±1 as they are."""

    def __init__(self):
        super().__init__()
        self.inexact = set(INEXACT.split())
        self.generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        inexact = operation.overloadpacket.__name__ in self.inexact
        return tree_map_only(torch.Tensor, self.shake, result) if inexact else result

    def shake(self, x):
        if not x.is_floating_point():
            return x
        units = torch.empty_like(x).random_(-1, 2, generator=self.generator)
        return torch.where(x.abs() == 1, x, x * (1 + units * torch.finfo(x.dtype).eps))


def shaken(function):
    @functools.wraps(function)
    def run(*args):
        with Shaken():
            return function(*args)

    return run


@pytest.mark.parametrize("path", sorted(typed.FOLDER.glob("*.answers")), ids=lambda path: path.stem)
def test_a_mistake_keeps_its_name_whatever_the_last_digits(path):
    wrong = [answer for answer in typed.read(path) if answer.verdict == "wrong"]
    verdicts = [(answer, getattr(checks, answer.exercise).check(shaken(answer.function()))) for answer in wrong]
    assert not [(str(answer), verdict.text) for answer, verdict in verdicts if verdict.mistake != answer.name]
