"""The exercises of lesson 04: the code for t, attention, resolution, the U-Net put together, and a wrapper to repair.

What goes wrong in them is in lesson04.mistakes. The classes are given to the student, in the lesson and in my_ddpm.py:
they hold the layers, under the names that the package's UNet has for them, so that weights can be exchanged. What the
layers do is for the exercises to say.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .cases import normal
from .cases04 import attention_cases, embedding_cases, paint_cases, perturbed, pixel_cases, size_cases, width_cases
from .records import Case
from .written import exercise


@exercise(
    "4.1",
    embedding_cases,
    first="how many hands has the clock, and how fast does each of them turn? What shape has the table of all angles?",
    tolerance=1e-3,
    free=("t",),
)
def sinusoidal_embedding(t, dim):
    """Codes for t: cosines, then sines, of t at dim / 2 frequencies.

    t:       (B,) integers
    dim:     number of features, even
    returns  (B, dim) in float32; frequency i, from 0 on, is 10000 ** (-i / (dim / 2))
    """
    i = torch.arange(dim // 2, device=t.device)
    frequencies = 10_000.0 ** (-i / (dim // 2))
    angles = t[:, None].float() * frequencies  # (B, dim / 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, sin], dim=1)


ROUNDING = 2.0**-19  # how far off, as a share of it, an angle may be in float32: exp of a logarithm has few digits


def far_off(angles: Tensor) -> Tensor:
    """How far off sines and cosines of large angles may be; NaN where float32 hardly knows where they are."""
    off = angles.abs() * ROUNDING
    return torch.where(off > 0.1, torch.nan, off)


def published(t: Tensor, dim: int) -> Tensor:
    """A widely copied table of codes: sines into the even rows, and then cosines of those into the wrong rows."""
    n = max(int(t.max()) + 1, 2)
    pairs = 10_000.0 ** (-2 * torch.arange(dim) / dim)
    table = torch.arange(n)[:, None].float() * pairs
    mask = torch.arange(0, n, 2)
    table[mask] = table[mask].sin()
    table[1 - mask] = table[mask].cos()
    return table[t]


@exercise(
    "4.2",
    attention_cases,
    first="which shape has the table of shares, for one image and one head? Along which of its axes do they sum to 1?",
    flows=("q", "k", "v"),
    tolerance=1e-4,
)
def attention(q, k, v):
    """Each position compares its q with every k, and returns the weighted mean of their v.

    q, k, v: (B, heads, N, d), N positions with d features for each head
    returns  (B, heads, N, d): for every position an average of all v, with the weights
             softmax(q k^T / sqrt(d))
    """
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (B, heads, N, N)
    weights = scores.softmax(dim=3)
    return weights @ v


@exercise(
    "4.3",
    pixel_cases,
    first="take x of shape (1, 1, 4, 4) with the numbers 0 to 15 and p = 2. Which of them stand in channel 1?",
    tolerance=1e-6,
)
def space_to_depth(x, p):
    """Stack each patch of p x p pixels into channels: a smaller map, and nothing is lost.

    x:       (B, C, H, W), with H and W multiples of p
    returns  (B, C * p * p, H / p, W / p); ordered by channel, then by row, then by column
             within the patch
    """
    return rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=p, q=p)


@exercise(
    "4.4",
    paint_cases,
    first="paint the 2 x 2 example on paper. Which rows and columns of the output does pixel (i, j) reach?",
    tolerance=1e-5,
)
def transposed_convolution(x, kernel, stride):
    """Every pixel of x paints the kernel, times its value; neighbours paint `stride` apart.

    x:       (H, W) in float32, one image with one channel
    kernel:  (k, k) in float32
    returns  ((H - 1) * stride + k, (W - 1) * stride + k) in float32; where paint overlaps it
             adds up
    """
    (height, width), k = x.shape, kernel.shape[0]
    rows, columns = (height - 1) * stride + k, (width - 1) * stride + k
    out = x.new_zeros(rows, columns)
    for i in range(height):
        for j in range(width):
            top, left = i * stride, j * stride
            out[top : top + k, left : left + k] += x[i, j] * kernel
    return out


@exercise(
    "4.5",
    width_cases,
    first="trace three levels on paper, as the table above does for two. What is on the stack at the bottom?",
    free=("widths",),
)
def skip_channels(widths, blocks):
    """The number of input channels of every block on the way up, in the order they run.

    Kept on the way down are the stem's map (widths[0] channels), the map that each block
    returns, and the map that each downsampling returns, which has its level's width still.

    widths:  channels of each level, the top one first; below the last there is none
    blocks:  blocks per level on the way down; on the way up every level has one more
    returns  a list of ints, len(widths) * (blocks + 1) of them
    """
    skips = [widths[0]]  # the stem
    for level, width in enumerate(widths):
        skips += [width] * blocks
        if level < len(widths) - 1:
            skips.append(width)  # after downsampling
    inputs, below = [], widths[-1]
    for width in reversed(widths):
        for _ in range(blocks + 1):
            inputs.append(below + skips.pop())
            below = width
    return inputs


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


def block_cases() -> list[Case]:
    plan = [(8, 8, 0.0, False, (2, 5, 4), None), (8, 16, 0.0, False, (1, 4, 6), None)]
    plan += [(16, 8, 0.3, False, (2, 3, 3), None), (8, 8, 0.5, True, (3, 4, 4), None)]
    plan += [(8, 16, 0.2, True, (2, 4, 4), None)]
    plan += [(8, 16, 0.0, False, (2, 4, 3), zero) for zero in ("scale_shift", "conv2")]
    cases = []
    for seed, (c_in, c_out, dropout, training, (b, h, w), zero) in enumerate(plan):
        block = perturbed(Block(c_in, c_out, 12, dropout), seed, training, zero)
        facts = {
            "where the channels change": c_in != c_out,
            "for a batch of more than one": b > 1,
            "with dropout on": training,
            "with dropout on, other than 0.5": training and dropout != 0.5,
            "in evaluation mode, where dropout is off": dropout > 0 and not training,
            "where scale and shift make a difference": zero is None,
            "where what is added to the skip is not 0": zero != "conv2",
        }
        label = (
            f"{c_in} to {c_out} channels, dropout {dropout}{'' if training else ' off'}{zero and f', {zero} 0' or ''}"
        )
        cases.append(Case(label, (block, normal((b, c_in, h, w), 100 + seed), normal((b, 12), 110 + seed)), facts))
    return cases


@exercise(
    "4.6",
    block_cases,
    first="print a Block(32, 64, 128). Which of its layers change the number of channels? Which one reads the code?",
    flows=("block", "x", "embedding"),
)
def residual_forward(block, x, embedding):
    """What a residual block does with its layers.

    block:      holds norm1, conv1, scale_shift, norm2, dropout, conv2, skip
    x:          (B, c_in, H, W)
    embedding:  (B, E), code of time and class; block.scale_shift takes it to (B, 2 * c_out)
    returns     (B, c_out, H, W)
    """
    h = block.norm1(x)
    h = F.silu(h)
    h = block.conv1(h)  # (B, c_out, H, W)
    code = block.scale_shift(embedding)[:, :, None, None]
    scale, shift = code.chunk(2, dim=1)
    h = block.norm2(h)
    h = h * (1 + scale) + shift
    h = F.silu(h)
    h = block.dropout(h)
    h = block.conv2(h)
    return block.skip(x) + h


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

    def __init__(
        self,
        channels=1,
        widths=(32, 64),
        *,
        blocks=1,
        patch=2,
        num_classes=None,
        dropout=0.0,
        heads=4,
    ):
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


def net_cases() -> list[Case]:
    plan = [
        (dict(widths=(16, 8), heads=2), None, (3, 8, 8), None),
        (dict(widths=(8,), heads=2, num_classes=3), (1, 3, 2), (3, 4, 4), None),
        (dict(widths=(8,), heads=2, num_classes=5), None, (2, 4, 6), None),
        (dict(channels=2, widths=(8,), patch=1, heads=4), None, (3, 4, 2), None),
        (dict(channels=3, widths=(8, 8, 16), blocks=2, heads=2), None, (1, 8, 16), None),
        (dict(widths=(8, 8), heads=2), None, (3, 8, 8), "scale_shift"),
    ]
    cases = []
    for seed, (arguments, labels, (b, height, width), zero) in enumerate(plan):
        net = perturbed(MyUNet(**arguments), seed, seed % 2 == 1, zero)
        x = normal((b, net.channels, height, width), 120 + seed)
        t = torch.tensor([733, 1, 48][:b], device="cpu")
        y = torch.tensor(labels, device="cpu") if labels else None
        classes = net.num_classes is not None
        facts = {
            "for a network with classes": classes,
            "for a network with classes and y=None": classes and y is None,
            "where labels are given": y is not None,
            "for a batch of more than one": b > 1,
            "for patch = 1": net.patch == 1,
            "for more than one level": len(arguments["widths"]) > 1,
            "for more than one channel": net.channels > 1,
            "where the first width is not 8": arguments["widths"][0] != 8,
            "where the blocks hear the code of t and y": zero is None,
        }
        label = f"widths {arguments['widths']}, patch {net.patch}, {net.num_classes or 'no'} classes, y = {labels}"
        cases.append(Case(label, (net, x, t, y), facts))
    return cases


@exercise(
    "4.7",
    net_cases,
    first="print MyUNet(), and find the layers of the drawing in it, from left to right. Where do t and y come in?",
    flows=("net",),
    given=MyUNet,
)
def unet_forward(net, x, t, y=None):
    """The forward pass of a small U-Net, from layers that are there.

    net:     holds time, label, stem, down, middle1, attention, middle2, up, norm, out,
             and the numbers patch and num_classes; a network that knows no classes has
             None as label and num_classes, and is called without y
    x:       (B, C, H, W) noisy images
    t:       (B,) integers in 1...T
    y:       (B,) labels, or None: then all are the null class, label number net.num_classes
    returns  (B, C, H, W)
    """
    code = sinusoidal_embedding(t, net.time[0].in_features)
    emb = net.time(code)
    if net.label is not None:
        y = torch.full_like(t, net.num_classes) if y is None else y
        emb = emb + net.label(y)
    emb = F.silu(emb)

    h = space_to_depth(x, net.patch)
    h = net.stem(h)
    skips = [h]
    for layer in net.down:
        h = layer(h) if isinstance(layer, nn.Conv2d) else layer(h, emb)
        skips.append(h)
    h = net.middle1(h, emb)
    h = net.attention(h)
    h = net.middle2(h, emb)
    for layer in net.up:
        if isinstance(layer, nn.Sequential):
            h = layer(h)
        else:
            h = torch.cat([h, skips.pop()], dim=1)
            h = layer(h, emb)
    h = net.norm(h)
    h = F.silu(h)
    h = net.out(h)
    return F.pixel_shuffle(h, net.patch)


@exercise(
    "4.8",
    size_cases,
    first="try broken_any_size on 32 x 32 pixels, on 24 x 28, and with labels. Which line explains what you see?",
)
def any_size(net, x, t, y=None):
    """broken_any_size without its four faults: call a network on images of any size.

    net:     net(x, t, y); takes heights and widths that are multiples of net.divisor
    x:       (B, C, H, W)
    t:       (B,) integers in 1...T
    y:       (B,) labels, or None
    returns  (B, C, H, W): what net says of x with zeros added below and to the right, no
             more than it needs, cut back to the size of x
    """
    height, width = x.shape[2:]
    down = -height % net.divisor  # was a whole divisor where nothing is missing
    right = -width % net.divisor
    padded = F.pad(x, (0, right, 0, down))  # F.pad begins with the last axis
    out = net(padded, t, y)  # was without y
    return out[:, :, :height, :width]  # was the last rows and columns
