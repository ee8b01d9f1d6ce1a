"""The network: a U-Net that is told t and, if you like, a class (lesson 04).

It works on patches of 2x2 pixels: space-to-depth at the input and its inverse at the output leave a
quarter of the positions to convolve, which on a CPU is most of the cost. Attention sits at the lowest
resolution. Both are keywords of `UNet`, and so is every other choice that lesson 04 builds and compares;
the blocks themselves are in blocks.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .arguments import number, whole
from .blocks import GROUPS, Attention, ResidualBlock, StandardisedConv2d, downsampling, sinusoidal_embedding, upsampling
from .nets import evaluating

CHOICES = {  # what the keywords that name a kind can be
    "conv": ("plain", "standardised"),
    "time": ("scale_shift", "add"),
    "downsample": ("strided", "space_to_depth"),
    "upsample": ("nearest", "transposed"),
    "middle": ("full", "linear", None),
    "attention": ("full", "linear", None),
}


class UNet(nn.Module):
    """net(x, t, y=None): the shape of x in, the shape of x out, or with learn_variance twice its channels.

    channels:       of the images
    widths:         channels of each level; a level has half the resolution of the one above
    blocks:         residual blocks a level, each way (one more on the way up)
    patch:          side of the pixel patches at the input: 1 for none
    num_classes:    None, or how many classes; label num_classes is then the null class, and y=None means all null
    dropout:        inside the residual blocks
    heads:          of every attention
    conv:           in the residual blocks: "plain", or "standardised" weights
    time:           how a block hears of t and y: "scale_shift" of its second normalisation, or "add" before it
    attention:      after the residual blocks of each level: "full", "linear" or None, one a level; default none
    middle:         the attention at the lowest resolution, between two blocks: "full", "linear" or None
    downsample:     "strided" convolution, or "space_to_depth" and a 1x1 convolution
    upsample:       "nearest" neighbour and a 3x3 convolution, or "transposed" convolution
    self_condition: take x_self, an earlier estimate of x_0, as further input channels (Chen et al., 2022)
    learn_variance: as many channels again at the output: where the variance of a reverse step lies, see
                    `GaussianDiffusion.log_variance`
    raises          ValueError for another kind, or a width that does not divide into 8 groups and `heads` heads
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (32, 64),
        *,
        blocks: int = 1,
        patch: int = 2,
        num_classes: int | None = None,
        dropout: float = 0.0,
        heads: int = 4,
        conv: str = "plain",
        time: str = "scale_shift",
        attention: Sequence[str | None] | None = None,
        middle: str | None = "full",
        downsample: str = "strided",
        upsample: str = "nearest",
        self_condition: bool = False,
        learn_variance: bool = False,
    ):
        super().__init__()
        channels, blocks = whole("channels", channels, 1), whole("blocks", blocks, 1)
        patch, heads = whole("patch", patch, 1), whole("heads", heads, 1)
        widths = tuple(whole(f"widths[{i}]", width, 1) for i, width in enumerate(widths))
        num_classes = None if num_classes is None else whole("num_classes", num_classes, 1)
        dropout = number("dropout", dropout, 0, 1)
        attention = (None,) * len(widths) if attention is None else tuple(attention)
        kinds = dict(conv=conv, time=time, middle=middle, downsample=downsample, upsample=upsample)
        _check_arguments(widths, heads, attention, kinds)
        self.arguments = dict(  # what it takes to build this network again: goes into a checkpoint
            channels=channels, widths=widths, blocks=blocks, patch=patch, num_classes=num_classes, dropout=dropout,
            heads=heads,
        )  # fmt: skip
        choices = dict(  # the rest goes there only where it is not the default, so that older code reads it too
            conv=conv, time=time, attention=attention if any(attention) else None, middle=middle,
            downsample=downsample, upsample=upsample, self_condition=self_condition, learn_variance=learn_variance,
        )  # fmt: skip
        defaults = UNet.__init__.__kwdefaults__
        self.arguments |= {name: value for name, value in choices.items() if value != defaults[name]}
        self.channels, self.patch, self.num_classes = channels, patch, num_classes
        self.self_condition, self.learn_variance = self_condition, learn_variance
        self.divisor = patch * 2 ** (len(widths) - 1)  # image sides must be multiples of this

        first, last = widths[0], widths[-1]
        embedding = 4 * first
        self.time = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(num_classes + 1, embedding) if num_classes is not None else None

        def block(c_in: int, c_out: int) -> ResidualBlock:
            kind = StandardisedConv2d if conv == "standardised" else nn.Conv2d
            return ResidualBlock(c_in, c_out, embedding, dropout, time=time, conv=kind)

        self.stem = nn.Conv2d((1 + self_condition) * channels * patch**2, first, 3, padding=1)
        skips = [first]  # channels of every feature map that the way up will read again
        self.down = nn.ModuleList()
        width = first
        for level, w in enumerate(widths):
            for _ in range(blocks):
                self.down.append(block(width, w))
                if attention[level]:
                    self.down.append(Attention(w, heads, attention[level]))
                width = w
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(downsampling(downsample, width))
                skips.append(width)

        self.middle1 = block(last, last)
        self.attention = Attention(last, heads, middle) if middle else nn.Identity()
        self.middle2 = block(last, last)

        self.up = nn.ModuleList()
        for level, w in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(block(width + skips.pop(), w))
                if attention[level]:
                    self.up.append(Attention(w, heads, attention[level]))
                width = w
            if level:
                self.up.append(upsampling(upsample, width))

        self.norm = nn.GroupNorm(GROUPS, first)
        self.out = nn.Conv2d(first, (1 + learn_variance) * channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, x_self: Tensor | None = None) -> Tensor:
        """The network's estimate of its target.

        x:       (B, C, H, W) noisy images
        t:       (B,) integers in 1…T
        y:       (B,) labels, or None
        x_self:  (B, C, H, W) an earlier estimate of x_0, read within [-1, 1]; None means zeros
        returns  (B, C, H, W), or (B, 2C, H, W) with learn_variance
        """
        self._check(x, t, y, x_self)
        emb = sinusoidal_embedding(t, self.time[0].in_features).to(self.time[0].weight.dtype)
        emb = self.time(emb)  # (B, embedding)
        if self.label is not None:
            emb = emb + self.label(torch.full_like(t, self.num_classes) if y is None else y)
        emb = F.silu(emb)

        if self.self_condition:
            x = torch.cat([x, torch.zeros_like(x) if x_self is None else x_self.clamp(-1, 1)], dim=1)  # (B, 2C, H, W)
        h = rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=self.patch, q=self.patch)
        h = self.stem(h)  # (B, widths[0], H/patch, W/patch)
        skips = [h]
        for layer in self.down:
            h = layer(h, emb) if isinstance(layer, ResidualBlock) else layer(h)
            if isinstance(layer, Attention):
                skips[-1] = h  # it completes the block before it
            else:
                skips.append(h)
        h = self.middle2(self.attention(self.middle1(h, emb)), emb)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), emb) if isinstance(layer, ResidualBlock) else layer(h)
        h = self.out(F.silu(self.norm(h)))
        return rearrange(h, "b (c p q) h w -> b c (h p) (w q)", p=self.patch, q=self.patch)

    def _check(self, x: Tensor, t: Tensor, y: Tensor | None, x_self: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must have shape (B, {self.channels}, H, W), got {tuple(x.shape)}")
        if x.shape[2] % self.divisor or x.shape[3] % self.divisor:
            near = tuple(side + -side % self.divisor for side in x.shape[2:])
            raise ValueError(
                f"height and width must be multiples of {self.divisor} (patch {self.patch}, halved "
                f"{(self.divisor // self.patch).bit_length() - 1} times), got {tuple(x.shape[2:])}: "
                f"pad or resize the images to {near}, say"
            )
        if y is not None and self.label is None:
            raise ValueError("this network knows no classes (num_classes=None), so it takes no labels y")
        for name, of_each in (("t", t), ("y", t if y is None else y)):
            if of_each.shape != x.shape[:1]:
                n, shape = len(x), tuple(of_each.shape)
                raise ValueError(f"{name} must have shape ({n},) to match x's batch of {n}, got {shape}")
            if of_each.is_floating_point():
                raise ValueError(f"{name} must hold integers (torch.int64), got {of_each.dtype}")
        if x_self is not None and not self.self_condition:
            raise ValueError("this network takes no estimate x_self: build it with self_condition=True")
        if x_self is not None and x_self.shape != x.shape:
            raise ValueError(f"x_self must have the shape of x, {tuple(x.shape)}, got {tuple(x_self.shape)}")


class Row(NamedTuple):
    """One layer in `layer_table`: its name in the network, its class, shapes in and out, and parameters."""

    name: str
    layer: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int


def layer_table(net: nn.Module, *inputs: Tensor) -> list[Row]:
    """What each layer of a network does to the shape of its input, in the order in which they run.

    net:      any module; its direct children are listed, and the entries of its lists
    inputs:   what to call it with, net(*inputs)
    returns   a Row for every layer that runs; parameters of all rows add up to those of the network
    """
    layers, rows, hooks = [], [], []
    for name, child in net.named_children():
        inside = child.named_children() if isinstance(child, nn.ModuleList) else ()
        layers += [(f"{name}.{i}", layer) for i, layer in inside] or [(name, child)]

    def record(name: str):
        def hook(layer: nn.Module, args: tuple, output: Tensor) -> None:
            parameters = sum(p.numel() for p in layer.parameters())
            rows.append(Row(name, type(layer).__name__, tuple(args[0].shape), tuple(output.shape), parameters))

        return hook

    try:
        hooks = [layer.register_forward_hook(record(name)) for name, layer in layers]
        with torch.no_grad(), evaluating(net):
            net(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def _check_arguments(widths, heads, attention, kinds: dict[str, str | None]) -> None:
    for name, kind in kinds.items():
        if kind not in CHOICES[name]:
            raise ValueError(f"{name} must be one of {CHOICES[name]}, got {kind!r}")
    if len(attention) != len(widths) or any(kind not in CHOICES["attention"] for kind in attention):
        raise ValueError(
            f"attention must hold one of {CHOICES['attention']} for each of {len(widths)} levels, got {attention}"
        )
    headed = [w for w, kind in zip(widths, attention, strict=True) if kind]
    if kinds["middle"]:
        headed.append(widths[-1])
    if any(w % GROUPS for w in widths) or any(w % heads for w in headed):
        raise ValueError(
            f"widths must be multiples of {GROUPS}, those with attention also of heads={heads}; got {widths}"
        )
