"""Small things about networks that training, sampling and measuring share: where one is, how it is called.

A network is any callable net(x, t, y=None). A wrapper of one is a module, so that what asks for parameters, the mode or
the device of a network finds them without knowing that there is a wrapper.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .arguments import number


def device_of(net: Callable[..., Tensor]) -> torch.device:
    """Where the network's parameters are; the CPU for a network without any."""
    parameter = next(net.parameters(), None) if isinstance(net, nn.Module) else None
    return parameter.device if parameter is not None else torch.device("cpu")


def data_dtype(net: Callable[..., Tensor]) -> torch.dtype | None:
    """What surrounds calls of the network is computed in: float64 for one in float64, float32 for one with other
    weights, half precision too; None for a network without any."""
    dtype = _dtype_of(net)
    return dtype if dtype in (torch.float64, None) else torch.float32


def call(
    net: Callable[..., Tensor], x: Tensor, t: Tensor, y: Tensor | None = None, x_self: Tensor | None = None
) -> Tensor:
    """The network's output; x and x_self are given to it in the type of its weights.

    Only a network that conditions itself knows the keyword x_self, so it is left out where it is None.
    """
    dtype = _dtype_of(net) or x.dtype
    extra = {} if x_self is None else {"x_self": x_self.to(dtype)}
    return net(x.to(dtype), t, y, **extra)


def _dtype_of(net: Callable[..., Tensor]) -> torch.dtype | None:
    parameters = net.parameters() if isinstance(net, nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), None)


@contextmanager
def evaluating(net: Callable[..., Tensor]) -> Iterator[None]:
    """Dropout off while this lasts; afterwards every module of `net` is in the mode it was in before."""
    modules = list(net.modules()) if isinstance(net, nn.Module) else []
    training = [module for module in modules if module.training]
    if training:
        net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Guided(nn.Module):
    """Classifier-free guidance (Ho and Salimans, 2021): a network that exaggerates what the label changes.

    net:     trained with classes, and with labels dropped
    scale:   a number; 1 is the plain conditional network, 0 the unconditional one; the output is u + scale (c - u)
    raises   ValueError if the network has no classes, or is then called without labels

    Each call is one call of `net` on a doubled batch, labels first, null class second.
    """

    def __init__(self, net: Callable[..., Tensor], scale: float):
        super().__init__()
        if getattr(net, "num_classes", None) is None:
            raise ValueError("guidance needs a network that was trained with classes: one built with num_classes=...")
        self.net, self.scale = net, scale if isinstance(scale, Tensor) else number("scale", scale)
        self.num_classes, self.self_condition = net.num_classes, getattr(net, "self_condition", False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, x_self: Tensor | None = None) -> Tensor:
        if y is None:
            raise ValueError("guidance needs labels y: the classes to guide towards")
        null = torch.full_like(y, self.num_classes)
        x_selves = None if x_self is None else torch.cat([x_self, x_self])
        both = call(self.net, torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null]), x_selves)
        conditional, unconditional = both.chunk(2)
        return unconditional + self.scale * (conditional - unconditional)


class MixedPrecision(nn.Module):
    """A network with its matrix products in `dtype`; its weights, and all that surrounds the call, stay in float32.

    dtype: torch.bfloat16 or torch.float16; None changes nothing
    """

    def __init__(self, net: Callable[..., Tensor], dtype: torch.dtype | None):
        super().__init__()
        self.net, self.dtype = net, dtype
        self.self_condition = getattr(net, "self_condition", False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, x_self: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return call(self.net, x, t, y, x_self)
