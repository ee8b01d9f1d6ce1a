"""The blocks that the U-Net is made of (lesson 04): the code for t, convolutions, attention, resolution.

Each is small enough to be written in the lesson, where it is tested against the one here and timed.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

GROUPS = 8  # of channels that GroupNorm normalises together


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


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1/fan-in (Qiao et al., 2019), times a learned gain.

    The gain, one an output channel (Brock et al., 2021), can start at 0, which a kernel that is divided by its own
    standard deviation cannot.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        fan_in = self.weight[0].numel()
        weight = (self.weight - mean) * torch.rsqrt(variance * fan_in + 1e-4) * self.gain
        return self._conv_forward(x, weight, self.bias)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip; time and class scale and shift the second normalisation, or are added.

    c_in, c_out:  channels in and out
    embedding:    features of the code for time and class
    dropout:      before the second convolution
    time:         "scale_shift" or "add"
    conv:         nn.Conv2d or StandardisedConv2d
    """

    def __init__(
        self, c_in: int, c_out: int, embedding: int, dropout: float = 0.0, time: str = "scale_shift",
        conv: type[nn.Conv2d] = nn.Conv2d,
    ):  # fmt: skip
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, c_in)
        self.conv1 = conv(c_in, c_out, 3, padding=1)
        self.scale_shift = nn.Linear(embedding, 2 * c_out) if time == "scale_shift" else None
        self.add = nn.Linear(embedding, c_out) if time == "add" else None
        self.norm2 = nn.GroupNorm(GROUPS, c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        # the block starts as its skip: deep stacks then train from the first step
        nn.init.zeros_(self.conv2.gain if conv is StandardisedConv2d else self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, c_in, H, W), embedding (B, embedding) -> (B, c_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))  # (B, c_out, H, W)
        if self.add is not None:
            h = self.norm2(h + self.add(embedding)[:, :, None, None])
        else:
            scale, shift = self.scale_shift(embedding)[:, :, None, None].chunk(2, dim=1)  # (B, c_out, 1, 1) each
            h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention whose cost grows with N, not N² (Shen et al., 2021): (B, heads, N, d) each, and so is the result.

    Without one softmax over q k^T, the product k^T v can be taken first: a d x d summary of all positions.
    """
    summary = k.softmax(dim=2).transpose(2, 3) @ v  # (B, heads, d, d): averages over the N positions
    return q.softmax(dim=3) @ summary


class Attention(nn.Module):
    """Self-attention over the positions of a feature map, with a skip around it; kind "full" or "linear".

    The projections carry no bias: a key's bias cancels in the softmax, so its gradient is rounding noise, which Adam
    would amplify.
    """

    def __init__(self, channels: int, heads: int, kind: str = "full"):
        super().__init__()
        self.heads, self.kind = heads, kind
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, H, W)."""
        height = x.shape[2]
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (three n d) h w -> three b n (h w) d", three=3, n=self.heads)
        mix = F.scaled_dot_product_attention if self.kind == "full" else linear_attention
        h = mix(q, k, v)  # (B, heads, H*W, channels/heads)
        return x + self.out(rearrange(h, "b n (h w) d -> b (n d) h w", h=height))


def downsampling(kind: str, width: int) -> nn.Module:
    """Half the resolution: a convolution that takes every second position, or 2x2 pixels stacked into channels."""
    if kind == "strided":
        return nn.Conv2d(width, width, 3, stride=2, padding=1)
    return nn.Sequential(Rearrange("b c (h p) (w q) -> b (c p q) h w", p=2, q=2), nn.Conv2d(4 * width, width, 1))


def upsampling(kind: str, width: int) -> nn.Module:
    """Twice the resolution: pixels repeated and convolved, or every pixel painted as a 4x4 kernel, 2 apart."""
    if kind == "nearest":
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1))
    return nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
