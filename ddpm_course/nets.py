"""Small things about networks that training, sampling and measuring share: where one is, how it is called.

A network is any callable net(x, t, y=None). A wrapper of one is a module, so that what asks for parameters, the mode or
the device of a network finds them without knowing that there is a wrapper.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .arguments import number, whole


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


def halves(output: Tensor, xt: Tensor) -> tuple[Tensor, Tensor | None]:
    """What an output says about x_0, and what its second half, if it has one, says about the variance (lesson 12).

    raises ValueError unless the output has the shape of xt, or twice its channels
    """
    if output.shape == xt.shape:
        return output, None
    if xt.ndim < 2 or output.shape != (len(xt), 2 * xt.shape[1], *xt.shape[2:]):
        raise ValueError(
            f"an output must have the shape of xt, {tuple(xt.shape)}, or twice its channels; got {tuple(output.shape)}"
        )
    return output.chunk(2, 1)


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
    """Guidance (lesson 10): c, what a network says, is moved away from b, what a worse one says: b + scale (c - b).

    c is said with labels, and b without: classifier-free guidance (Ho and Salimans, 2021, eq. 6; their w is scale - 1).

    net:       trained with classes, and with labels dropped; with `weak`, any net(x, t, y)
    scale:     a number, or one for each item, shaped to multiply x; 1 is the plain conditional network, 0 the
               unconditional one
    interval:  the first and the last t at which to guide; elsewhere the scale is 1 (Kynkäänniemi et al., 2024)
    negative:  a class: b is said with this label in the place of none; called without labels, c is said without them
               ("anything but")
    weak:      another network with the same kind of output, less trained or smaller: it says b, with the same labels
               (autoguidance: Karras et al., 2024)
    rescale:   how much of the spread of the outcome is set back to that of c, in [0, 1]: 0.7 in Lin et al. (2024), eq.
               15 and 16, as guidance makes bright brighter once the schedule leaves the brightness to the network
    raises     ValueError if the network has no classes, or is then called without labels, where they are needed; or if
               scale, interval, negative or rescale do not fit

    Each call is one call of `net` on a doubled batch, labels first, null class second; or one call of each network. The
    interval saves none of it: to know t, the host would have to wait.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        scale: float | Tensor,
        *,
        interval: tuple[int, int] | None = None,
        negative: int | None = None,
        weak: Callable[..., Tensor] | None = None,
        rescale: float = 0.0,
    ):
        super().__init__()
        classes = getattr(net, "num_classes", None)
        if classes is None and (weak is None or negative is not None):
            raise ValueError("guidance needs a network that was trained with classes: one built with num_classes=...")
        if interval is not None:
            interval = _interval(interval)
        if negative is not None:
            negative = whole("negative", negative, 0, classes - 1, f", a class to avoid; {classes} is the null class")
        self.net, self.scale = net, scale if isinstance(scale, Tensor) else number("scale", scale)
        self.interval, self.negative, self.weak = interval, negative, weak
        self.rescale = number("rescale", rescale, 0, 1)
        self.num_classes, self.self_condition = classes, getattr(net, "self_condition", False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, x_self: Tensor | None = None) -> Tensor:
        if y is None and self.negative is None and self.weak is None:
            raise ValueError("guidance needs labels y: the classes to guide towards")
        base = None if self.negative is None else torch.full_like(t, self.negative)
        if self.weak is None:
            null = torch.full_like(t, self.num_classes)
            labels = torch.cat([null if y is None else y, null if base is None else base])
            x_selves = None if x_self is None else torch.cat([x_self, x_self])
            better, worse = call(self.net, torch.cat([x, x]), torch.cat([t, t]), labels, x_selves).chunk(2)
        else:
            better = call(self.net, x, t, y, x_self)
            x_self = x_self if getattr(self.weak, "self_condition", False) else None
            worse = call(self.weak, x, t, y if base is None else base, x_self)
        scale = self.scale
        if self.interval is not None:
            inside = (self.interval[0] <= t) & (t <= self.interval[1])
            scale = 1 + (scale - 1) * inside.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        (better, variance), (worse, _) = halves(better, x), halves(worse, x)
        guided = worse + scale * (better - worse)
        if self.rescale:
            wanted, spread = (said.flatten(1).std(1) for said in (better, guided))
            factor = 1 + self.rescale * (wanted / spread - 1)  # (B,)
            guided = factor.reshape(-1, *[1] * (x.ndim - 1)) * guided
        return guided if variance is None else torch.cat([guided, variance], 1)  # the better one's, as it is


def _interval(interval: tuple[int, int]) -> tuple[int, int]:
    try:
        first, last = interval
    except (TypeError, ValueError) as e:
        raise ValueError(f"interval must be two times, the first and the last to guide at; got {interval!r}") from e
    first = whole("the first t of interval", first, 0)
    return first, whole("the last t of interval", last, first)


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
