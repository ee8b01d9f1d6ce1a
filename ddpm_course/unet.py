"""The network: a small U-Net that is told t and, if you like, a class (lesson 04).

It works on patches of 2x2 pixels: space-to-depth at the input and its inverse at the output leave a
quarter of the positions to convolve, which on a CPU is most of the cost. Attention sits at the lowest
resolution. Linear projections inside attention carry no bias: a key's bias cancels in the softmax, so its
gradient is rounding noise, which Adam would amplify.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Codes for t made of sines and cosines over the feature axis (Vaswani et al., 2017, section 3.5).

    t:       (B,) integers, about 0…1000: the frequencies run from 1 down to 1/max_period
    dim:     number of features, even
    returns  (B, dim) float32, cosines first; different for every t
    raises   ValueError if dim is odd
    """
    if dim % 2:
        raise ValueError(f"dim must be even (half sines, half cosines), got {dim}")
    frequencies = torch.exp(-math.log(max_period) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = t[:, None].float() * frequencies  # (B, dim/2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip; time and class scale and shift the second normalisation."""

    def __init__(self, c_in: int, c_out: int, embedding: int, dropout: float = 0.0):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.scale_shift = nn.Linear(embedding, 2 * c_out)
        self.norm2 = nn.GroupNorm(8, c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # the block starts as its skip: deep stacks then train from the first step
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (B, c_out, H, W)
        scale, shift = self.scale_shift(embedding)[:, :, None, None].chunk(2, dim=1)  # (B, c_out, 1, 1) each
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(self.dropout(h))


class Attention(nn.Module):
    """Self-attention over the positions of a feature map, with a skip around it."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (three n d) h w -> three b n (h w) d", three=3, n=self.heads)
        h = F.scaled_dot_product_attention(q, k, v)  # (B, heads, H*W, channels/heads)
        return x + self.out(rearrange(h, "b n (h w) d -> b (n d) h w", h=height))


class UNet(nn.Module):
    """net(x, t, y=None): the shape of x in, the shape of x out.

    channels:     of the images
    widths:       channels of each level; a level has half the resolution of the one above
    blocks:       residual blocks a level, each way
    patch:        side of the pixel patches at the input: 1 or 2
    num_classes:  None, or the number of classes; label num_classes is then the null class, and y=None means all null
    dropout:      inside the residual blocks
    heads:        of the attention at the lowest resolution
    raises        ValueError if a width does not divide into 8 groups and `heads` heads
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
    ):
        super().__init__()
        widths = tuple(widths)
        if any(w % 8 for w in widths) or widths[-1] % heads:
            raise ValueError(f"widths must be multiples of 8, the last one also of heads={heads}; got {widths}")
        self.arguments = dict(  # what it takes to build this network again: goes into a checkpoint
            channels=channels, widths=widths, blocks=blocks, patch=patch, num_classes=num_classes, dropout=dropout,
            heads=heads,
        )  # fmt: skip
        self.channels, self.patch, self.num_classes = channels, patch, num_classes
        self.divisor = patch * 2 ** (len(widths) - 1)  # image sides must be multiples of this

        first, last = widths[0], widths[-1]
        embedding = 4 * first
        self.time = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(num_classes + 1, embedding) if num_classes is not None else None

        self.stem = nn.Conv2d(channels * patch**2, first, 3, padding=1)
        skips = [first]  # channels of every feature map that the way up will read again
        self.down = nn.ModuleList()
        width = first
        for level, w in enumerate(widths):
            for _ in range(blocks):
                self.down.append(ResidualBlock(width, w, embedding, dropout))
                width = w
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)

        self.middle1 = ResidualBlock(last, last, embedding, dropout)
        self.attention = Attention(last, heads)
        self.middle2 = ResidualBlock(last, last, embedding, dropout)

        self.up = nn.ModuleList()
        for level, w in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(width + skips.pop(), w, embedding, dropout))
                width = w
            if level:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1)))

        self.norm = nn.GroupNorm(8, first)
        self.out = nn.Conv2d(first, channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """x (B, C, H, W) noisy images, t (B,) integers in 1…T, y (B,) labels or None -> (B, C, H, W)."""
        self._check(x, t, y)
        emb = self.time(sinusoidal_embedding(t, self.time[0].in_features))  # (B, embedding)
        if self.label is not None:
            emb = emb + self.label(torch.full_like(t, self.num_classes) if y is None else y)
        emb = F.silu(emb)

        h = rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=self.patch, q=self.patch)
        h = self.stem(h)  # (B, widths[0], H/patch, W/patch)
        skips = [h]
        for layer in self.down:
            h = layer(h, emb) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        h = self.middle2(self.attention(self.middle1(h, emb)), emb)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), emb) if isinstance(layer, ResidualBlock) else layer(h)
        h = self.out(F.silu(self.norm(h)))
        return rearrange(h, "b (c p q) h w -> b c (h p) (w q)", p=self.patch, q=self.patch)

    def _check(self, x: Tensor, t: Tensor, y: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must have shape (B, {self.channels}, H, W), got {tuple(x.shape)}")
        if x.shape[2] % self.divisor or x.shape[3] % self.divisor:
            raise ValueError(f"height and width must be multiples of {self.divisor}, got {tuple(x.shape[2:])}")
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) to match x's batch of {len(x)}, got {tuple(t.shape)}")
        if t.is_floating_point():
            raise ValueError(f"t must hold integers (torch.int64), got {t.dtype}")
        if y is not None and self.label is None:
            raise ValueError("this network knows no classes (num_classes=None), so it takes no labels y")
        if y is not None and y.shape != t.shape:
            raise ValueError(f"y must have shape ({len(x)},) to match x's batch of {len(x)}, got {tuple(y.shape)}")
        if y is not None and y.is_floating_point():
            raise ValueError(f"y must hold integers (torch.int64), got {y.dtype}")
