"""Right answers to the exercises of lesson 04, and the small U-Net that they complete.

The classes are given to the student, in the lesson and in my_ddpm.py: they hold the layers, under the names that
the package's UNet has for them, so that weights can be exchanged. What the layers do is for the exercises to say.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, dim: int) -> Tensor:
    """(B,) times to (B, dim) codes: dim / 2 cosines, then as many sines, of frequencies from 1 down to 1/10,000."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = t[:, None].float() * frequencies  # (B, dim/2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for every head by itself: (B, heads, N, d) each, and so is the result."""
    weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(dim=3)  # (B, heads, N, N)
    return weights @ v


def space_to_depth(x: Tensor, p: int) -> Tensor:
    """(B, C, H, W) to (B, C p², H/p, W/p): each patch of p x p pixels becomes channels."""
    return rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=p, q=p)


def transposed_convolution(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Every pixel of x (H, W) paints the kernel (k, k), times its value, `stride` apart; what overlaps is added."""
    return F.conv_transpose2d(x[None, None], kernel[None, None], stride=stride)[0, 0]


def skip_channels(widths: Sequence[int], blocks: int) -> list[int]:
    """Input channels of every block on the way up: what comes from below, and the last skip not read yet."""
    skips = [widths[0]]  # the stem's
    for level, width in enumerate(widths):
        skips += [width] * blocks
        if level < len(widths) - 1:
            skips.append(width)  # the downsampling's
    inputs, width = [], widths[-1]
    for w in reversed(widths):
        for _ in range(blocks + 1):
            inputs.append(width + skips.pop())
            width = w
    return inputs


def residual_forward(block: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    """A residual block: norm, SiLU and convolution twice, around a skip; the code scales and shifts the second norm."""
    h = block.conv1(F.silu(block.norm1(x)))  # (B, c_out, H, W)
    scale, shift = block.scale_shift(embedding)[:, :, None, None].chunk(2, dim=1)  # (B, c_out, 1, 1) each
    h = F.silu(block.norm2(h) * (1 + scale) + shift)
    return block.skip(x) + block.conv2(block.dropout(h))


def unet_forward(net: nn.Module, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """The whole network: patches, stem, down, middle, up with the skips, out, pixels."""
    emb = net.time(sinusoidal_embedding(t, net.time[0].in_features))
    if net.label is not None:
        emb = emb + net.label(torch.full_like(t, net.num_classes) if y is None else y)
    emb = F.silu(emb)
    h = net.stem(space_to_depth(x, net.patch))
    skips = [h]
    for layer in net.down:
        h = layer(h) if isinstance(layer, nn.Conv2d) else layer(h, emb)
        skips.append(h)
    h = net.middle2(net.attention(net.middle1(h, emb)), emb)
    for layer in net.up:
        h = layer(h) if isinstance(layer, nn.Sequential) else layer(torch.cat([h, skips.pop()], dim=1), emb)
    h = net.out(F.silu(net.norm(h)))
    return F.pixel_shuffle(h, net.patch)


class Block(nn.Module):
    """The layers of a residual block; residual_forward says what they do."""

    def __init__(self, c_in, c_out, embedding, dropout=0.0):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.scale_shift = nn.Linear(embedding, 2 * c_out)
        self.norm2 = nn.GroupNorm(8, c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x, embedding):
        return residual_forward(self, x, embedding)


class SelfAttention(nn.Module):
    """Every position of a feature map looks at every other; attention says how."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x):
        qkv = self.qkv(self.norm(x))
        q, k, v = rearrange(qkv, "b (s n d) h w -> s b n (h w) d", s=3, n=self.heads)
        h = rearrange(attention(q, k, v), "b n (h w) d -> b (n d) h w", h=x.shape[2])
        return x + self.out(h)


def down_path(widths, blocks, size, dropout):
    """Blocks and downsamplings on the way down; `size` features say t and the class."""
    layers = nn.ModuleList()
    for level, width in enumerate(widths):
        for i in range(blocks):
            c_in = widths[max(level - 1, 0)] if i == 0 else width
            layers.append(Block(c_in, width, size, dropout))
        if level < len(widths) - 1:
            layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
    return layers


def up_path(widths, blocks, size, dropout):
    """Blocks and upsamplings on the way up; skip_channels says what each block reads."""
    layers, inputs = nn.ModuleList(), iter(skip_channels(widths, blocks))
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            layers.append(Block(next(inputs), width, size, dropout))
        if level:
            conv = nn.Conv2d(width, width, 3, padding=1)
            layers.append(nn.Sequential(nn.Upsample(scale_factor=2), conv))
    return layers


class MyUNet(nn.Module):
    """The layers of a small U-Net; unet_forward connects them."""

    def __init__(self, channels=1, widths=(32, 64), *, blocks=1, patch=2, num_classes=None, dropout=0.0, heads=4):
        super().__init__()
        self.arguments = dict(channels=channels, widths=widths, blocks=blocks, patch=patch)
        self.arguments |= dict(num_classes=num_classes, dropout=dropout, heads=heads)
        self.channels, self.patch, self.num_classes = channels, patch, num_classes
        first, last, size = widths[0], widths[-1], 4 * widths[0]
        self.time = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))
        self.label = None if num_classes is None else nn.Embedding(num_classes + 1, size)
        self.stem = nn.Conv2d(channels * patch**2, first, 3, padding=1)
        self.down = down_path(widths, blocks, size, dropout)
        self.middle1 = Block(last, last, size, dropout)
        self.attention = SelfAttention(last, heads)
        self.middle2 = Block(last, last, size, dropout)
        self.up = up_path(widths, blocks, size, dropout)
        self.norm = nn.GroupNorm(8, first)
        self.out = nn.Conv2d(first, channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, t, y=None):
        return unet_forward(self, x, t, y)
