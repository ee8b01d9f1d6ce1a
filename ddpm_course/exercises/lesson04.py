"""The checks of lesson 04: the code for t, attention, resolution, and the U-Net put together."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from . import answers04
from .answers04 import Block, MyUNet
from .cases import normal, on_gpu
from .records import Case, Exercise, Mistake, Rounded

CODE = "lesson 04, 'Telling the network t'"
AXIS = "lesson 04, 'The wrong axis'"
ATTENTION = "lesson 04, 'Attention'"
HALVING = "lesson 04, 'Halving the resolution'"
DOUBLING = "lesson 04, 'Doubling the resolution'"
COUNTING = "lesson 04, 'Counting the channels'"
BLOCK = "lesson 04, 'The residual block'"
ASSEMBLY = "lesson 04, 'The assembly'"


# ---- 4.1


def _embedding_cases() -> list[Case]:
    plan = [
        ((1, 2, 3, 500, 999), 32),
        ((1000, 7, 400, 40, 33, 2), 128),
        ((5, 3, 1, 8), 4),  # as many t as features
        ((17,), 16),
        ((1, 0, 250), 6),
        ((12, 12, 700), 64),
    ]
    cases = []
    for t, dim in plan:
        facts = {
            "for a batch of one": len(t) == 1,
            "for dim = 6": dim == 6,
            "where t has as many entries as there are features": len(t) == dim,
            "where t is more than 100": torch.tensor(t)[:, None] > 100,
            "in the first half of the features": (torch.arange(dim) < dim // 2)[None],
            "in the second half of the features": (torch.arange(dim) >= dim // 2)[None],
        }
        cases.append(Case(f"t = {list(t)}, dim = {dim}", (torch.tensor(t, device="cpu"), dim), facts))
    return cases + on_gpu(cases[0])


ROUNDING = 2.0**-19  # how far off, as a share of it, an angle may be in float32: exp of a logarithm has few digits


def _sines_first(sin: Tensor, cos: Tensor) -> Tensor:
    return torch.cat([sin, cos], dim=1)


def _code(
    frequency: Callable[[Tensor, int], Tensor] = lambda i, half: 10_000.0 ** (-i / half),
    join: Callable[[Tensor, Tensor], Tensor] = lambda sin, cos: torch.cat([cos, sin], dim=1),
    time: Callable[[Tensor], Tensor] = lambda t: t.float(),
    rounding: float = 0.0,
) -> Callable:
    """An embedding, right or wrong: frequencies from (i, dim / 2), what becomes of sines and cosines, what of t.

    rounding: how far off each angle is, as a share of it; NaN where its sine and cosine have no digits left then
    """

    def function(t: Tensor, dim: int) -> Tensor:
        angles = time(t)[:, None] * frequency(torch.arange(dim // 2), dim // 2)
        off = angles.abs() * rounding
        off = torch.where(off.abs() > 0.1, torch.nan, off)
        return join(angles.sin() + off, angles.cos() + off)

    return function


def _rounded(**change: Any) -> Rounded:
    """A code of angles that get so large that float32 hardly knows where on the circle they are."""
    return Rounded(*(_code(**change, rounding=rounding) for rounding in (0.0, ROUNDING, -ROUNDING)))


def _interleaved(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b], dim=2).flatten(1)


def _over_rows(frequency: Callable[[int], Tensor], odd: Callable[[Tensor], Tensor], by_value: bool) -> Callable:
    """Sine and cosine by the row, not by the feature."""

    def function(t: Tensor, dim: int) -> Tensor:
        angles = t[:, None].float() * frequency(dim)
        even = (t if by_value else torch.arange(len(t))) % 2 == 0
        return torch.where(even[:, None], angles.sin(), odd(angles))

    return function


def _published(t: Tensor, dim: int) -> Tensor:
    """A widely copied table of codes: sines into the even rows, and then cosines of those into the wrong rows."""
    n = max(int(t.max()) + 1, 2)
    pairs = 10_000.0 ** (-2 * torch.arange(dim) / dim)
    table = torch.arange(n)[:, None].float() * pairs
    mask = torch.arange(0, n, 2)
    table[mask] = table[mask].sin()
    table[1 - mask] = table[mask].cos()
    return table[t]


_BY_FEATURE = (
    lambda dim: 10_000.0 ** (-2 * torch.arange(dim) / dim),
    lambda dim: 10_000.0 ** (-torch.arange(dim) / dim),
    lambda dim: 10_000.0 ** (-2 * (torch.arange(dim) // 2) / dim),
)
_ORDER = (
    "The order and the spacing of the features are free as long as you keep to them: a network learns with any. "
    "The course's checkpoint was trained with cosines first and i/(dim/2) in the exponent, so it reads only those."
)

_OTHER_CODES = tuple(
    _code(frequency, join)
    for frequency in (
        lambda i, half: 10_000.0 ** (-i / half),
        lambda i, half: 10_000.0 ** (-i / max(half - 1, 1)),
    )
    for join in (
        lambda sin, cos: torch.cat([cos, sin], dim=1),
        _sines_first,
        lambda sin, cos: _interleaved(sin, cos),
        lambda sin, cos: _interleaved(cos, sin),
    )
)

sinusoidal_embedding = Exercise(
    "4.1",
    "sinusoidal_embedding",
    answers04.sinusoidal_embedding,
    _embedding_cases,
    stub='''
def sinusoidal_embedding(t, dim):
    """Codes for t: cosines, then sines, of t at dim / 2 frequencies.

    t:       (B,) integers
    dim:     number of features, even
    returns  (B, dim) in float32; frequency i, from 0 on, is 10000 ** (-i / (dim / 2))
    """
    raise NotImplementedError  # your code here
''',
    first="make the dim / 2 frequencies, then the angles t * frequency of shape (B, dim / 2).",
    tolerance=1e-3,
    alternatives=[
        Mistake(
            "other order or spacing",
            f"{_ORDER} ({CODE}).",
            *_OTHER_CODES,
        ),
    ],
    mistakes=[
        Mistake(
            "wrong_axis",
            "You alternate sine and cosine over the *rows*, from one t to the next. Every t needs both, so alternate "
            f"over the features. (A widely copied version has it your way.) ({AXIS})",
            _published,
            *(_over_rows(f, torch.cos, by_value) for f in _BY_FEATURE for by_value in (False, True)),
        ),
        Mistake(
            "sin_only",
            "There are sines only. A sine alone cannot tell an angle from its mirror image, so cosines belong to it "
            f"({CODE}).",
            _code(join=lambda sin, cos: torch.cat([sin, sin], dim=1)),
            *(lambda t, dim, f=f: (t[:, None].float() * f(dim)).sin() for f in _BY_FEATURE),
        ),
        Mistake(
            "cos_only",
            "There are cosines only. The cosine is flat at 0, where the slow frequencies live: without sines small t "
            f"look alike ({CODE}).",
            _code(join=lambda sin, cos: torch.cat([cos, cos], dim=1)),
            *(lambda t, dim, f=f: (t[:, None].float() * f(dim)).cos() for f in _BY_FEATURE),
        ),
        Mistake(
            "unit_interval",
            "Your t is scaled down to (0, 1). The frequencies are made for t up to 1000: with a small t all angles are "
            f"near 0 and all codes alike ({CODE}).",
            _code(time=lambda t: t / 1000),
            _code(time=lambda t: t / t.max().clamp(min=1)),
            _code(time=lambda t: t / 1000, join=_sines_first),
        ),
        Mistake(
            "frequencies_grow",
            f"Your frequencies grow up to 10,000. They must fall, from 1 to 1/10,000: mind the sign ({CODE}).",
            _rounded(frequency=lambda i, half: 10_000.0 ** (i / half)),
            _rounded(frequency=lambda i, half: 10_000.0 ** (i / half), join=_sines_first),
        ),
        Mistake(
            "logarithm_forgotten",
            f"exp(-i / (dim / 2)) ends at 1/e. The exponent needs the factor log(10000) ({CODE}).",
            _code(lambda i, half: (-i / half).exp()),
            _code(lambda i, half: (-i / half).exp(), _sines_first),
        ),
        Mistake(
            "half_the_range",
            "You divide i by dim, so the frequencies stop at 1/100. There are dim / 2 of them: divide i by that "
            f"({CODE}).",
            _code(lambda i, half: 10_000.0 ** (-i / (2 * half))),
            _code(lambda i, half: 10_000.0 ** (-i / (2 * half)), _sines_first),
        ),
        Mistake(
            "twice_the_range",
            f"2i / (dim / 2) goes too far, to 1/10⁸. i runs to dim / 2, so divide i by dim / 2 ({CODE}).",
            _code(lambda i, half: 10_000.0 ** (-2 * i / half)),
            _code(lambda i, half: 10_000.0 ** (-2 * i / half), _sines_first),
        ),
        Mistake(
            "joined_over_batch",
            f"Sines and cosines are joined along the batch: cat them along the feature axis, dim=1 ({CODE}).",
            _code(join=lambda sin, cos: torch.cat([sin, cos])),
            _code(join=lambda sin, cos: torch.cat([cos, sin])),
        ),
        Mistake(
            "counted_from_0",
            f"You take t - 1. Here t counts from 1, and the code of t is made from t itself ({CODE}).",
            _code(time=lambda t: t.float() - 1),
        ),
        Mistake(
            "turns",
            f"You multiply by 2π. The angles are in radians already: t * frequency ({CODE}).",
            _rounded(time=lambda t: 2 * math.pi * t.float()),
            _rounded(time=lambda t: 2 * math.pi * t.float(), join=_sines_first),
        ),
        Mistake(
            "angles",
            f"These are the angles themselves, as large as t. Take their cosines and sines ({CODE}).",
            lambda t, dim: torch.cat([t[:, None] * 10_000.0 ** (-torch.arange(dim // 2) / (dim // 2))] * 2, dim=1),
            lambda t, dim: t[:, None] * 10_000.0 ** (-torch.arange(dim // 2) / (dim // 2)),
            lambda t, dim: t[:, None] * 10_000.0 ** (-torch.arange(dim) / dim),
        ),
    ],
)


# ---- 4.2


def _attention_cases() -> list[Case]:
    plan = [(2, 2, 6, 4), (1, 1, 5, 8), (3, 4, 7, 2), (2, 3, 3, 3), (1, 2, 1, 4), (2, 4, 9, 16)]
    cases = []
    for seed, shape in enumerate(plan):
        facts = {
            "for one head": shape[1] == 1,
            "for more than one head": shape[1] > 1,
            "for a single position": shape[2] == 1,
            "where there are as many positions as features": shape[2] == shape[3],
            "for a batch of more than one": shape[0] > 1,
        }
        qkv = tuple(1.5 * normal(shape, 40 + 3 * seed + i) for i in range(3))
        cases.append(Case(f"q, k, v of shape {shape}", qkv, facts))
    return cases + on_gpu(cases[0])


def _attend(
    scale: Callable[[Tensor], float] = lambda q: q.shape[3] ** -0.5,
    axis: int = 3,
    weigh: Callable[[Tensor], Tensor] = lambda w: w,
    order: tuple[int, int, int] = (0, 1, 2),
    normalise: Callable[[Tensor, int], Tensor] = torch.softmax,
) -> Callable:
    """Attention, right or wrong."""

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        a, b, c = ((q, k, v)[i] for i in order)
        weights = weigh(normalise(a @ b.transpose(2, 3) * scale(a), axis))
        return weights @ c

    return function


def _split_otherwise(pack: str, **sizes: str) -> Callable:
    """Attention over other axes than positions: q, k and v rearranged by `pack`, the result back again."""
    back = " -> ".join(reversed(pack.split(" -> ")))

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        known = {name: q.shape["bhnd".index(axis)] for name, axis in sizes.items()}
        a, b, c = (rearrange(x, pack) for x in (q, k, v))
        return rearrange(answers04.attention(a, b, c), back, **known)

    return function


def _reshaped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, n, d = q.shape
    return answers04.attention(*(x.reshape(b, n, h, d).transpose(1, 2) for x in (q, k, v)))


attention = Exercise(
    "4.2",
    "attention",
    answers04.attention,
    _attention_cases,
    stub='''
def attention(q, k, v):
    """Every position asks with its q, is found by its k, and hands over its v.

    q, k, v: (B, heads, N, d), N positions with d features for each head
    returns  (B, heads, N, d): for every position an average of all v, with the weights
             softmax(q k^T / sqrt(d))
    """
    raise NotImplementedError  # your code here
''',
    first="make the N x N table of products of every q with every k, for each head by itself.",
    tolerance=1e-4,
    mistakes=[
        Mistake(
            "softmax_over_queries",
            "Your softmax runs over the queries. Each *query* shares out one unit of weight over the keys, so it runs "
            f"over the last axis ({ATTENTION}).",
            _attend(axis=2),
        ),
        Mistake(
            "softmax_over_heads",
            f"Your softmax runs over the heads. It runs over the keys, the last axis ({ATTENTION}).",
            _attend(axis=1),
        ),
        Mistake(
            "softmax_over_batch",
            f"Your softmax runs over the batch: the images would share weight. It runs over the keys ({ATTENTION}).",
            _attend(axis=0),
        ),
        Mistake(
            "no_scale",
            "The division by √d is missing. A product of d terms grows like √d, and the softmax of large numbers "
            f"picks a single key ({ATTENTION}).",
            _attend(lambda q: 1.0),
        ),
        Mistake(
            "scale_all_channels",
            "You divide by the root of *all* channels. Each head works alone with its d features: divide by √d "
            f"({ATTENTION}).",
            _attend(lambda q: (q.shape[1] * q.shape[3]) ** -0.5),
        ),
        Mistake(
            "scale_not_rooted",
            f"You divide by d. The standard deviation of the products is √d: divide by that ({ATTENTION}).",
            _attend(lambda q: 1 / q.shape[3]),
        ),
        Mistake(
            "scale_multiplied",
            f"You multiply by √d. Divide, so that the products have a variance of about 1 ({ATTENTION}).",
            _attend(lambda q: q.shape[3] ** 0.5),
        ),
        Mistake(
            "scale_positions",
            f"You divide by the root of the number of positions. Divide by √d, the size of q and k ({ATTENTION}).",
            _attend(lambda q: q.shape[2] ** -0.5),
        ),
        Mistake(
            "scaled_late",
            f"You scale after the softmax. The weights must sum to 1: scale the products before it ({ATTENTION}).",
            lambda q, k, v: (q @ k.transpose(2, 3)).softmax(3) / math.sqrt(q.shape[3]) @ v,
        ),
        Mistake(
            "no_softmax",
            f"The softmax is missing: without it the weights are no shares, negative ones among them ({ATTENTION}).",
            _attend(normalise=lambda s, axis: s),
        ),
        Mistake(
            "sigmoid",
            f"A sigmoid weighs each key by itself. The weights of a query sum to 1: softmax ({ATTENTION}).",
            _attend(normalise=lambda s, axis: s.sigmoid()),
        ),
        Mistake(
            "roles_swapped",
            "q and k are swapped: position i is answered with what others ask of it. Rows belong to queries: q k^T "
            f"({ATTENTION}).",
            _attend(order=(1, 0, 2)),
        ),
        Mistake(
            "weights_transposed",
            f"The weights are transposed: row i holds query i's weights, so weights @ v ({ATTENTION}).",
            _attend(weigh=lambda w: w.transpose(2, 3)),
        ),
        Mistake(
            "keys_for_values",
            f"You average the keys. k says where to look, v what to take away ({ATTENTION}).",
            _attend(order=(0, 1, 1)),
        ),
        Mistake(
            "weights_returned",
            f"These are the N x N weights. Multiply them with v ({ATTENTION}).",
            lambda q, k, v: (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(3),
        ),
        Mistake(
            "over_heads",
            "Your heads look at each other, within one position. Attention runs over the N positions, each head by "
            f"itself ({ATTENTION}).",
            _split_otherwise("b h n d -> b n h d"),
        ),
        Mistake(
            "heads_merged",
            "All heads share one table of weights. Each head has its own: keep the heads' axis apart, like the batch's "
            f"({ATTENTION}).",
            _split_otherwise("b h n d -> b () n (h d)", h="h"),
            lambda q, k, v: (torch.einsum("bhnd,bhmd->bnm", q, k) / math.sqrt(q.shape[3])).softmax(2)[:, None] @ v,
        ),
        Mistake(
            "heads_and_positions_mixed",
            "A reshape has mixed heads and positions. reshape does not move numbers: use transpose or rearrange "
            f"({ATTENTION}).",
            lambda q, k, v: _reshaped(q, k, v),
            lambda q, k, v: _reshaped(q, k, v).transpose(1, 2).reshape(q.shape),
        ),
    ],
)


# ---- 4.3


def _pixel_cases() -> list[Case]:
    plan = [
        ((2, 3, 4, 6), 2),
        ((1, 1, 4, 4), 2),
        ((2, 2, 6, 3), 3),
        ((3, 2, 4, 2), 1),
        ((1, 2, 4, 8), 4),
        ((2, 4, 2, 2), 2),
    ]
    cases = []
    for seed, (shape, p) in enumerate(plan):
        facts = {
            "for one channel": shape[1] == 1,
            "for more than one channel": shape[1] > 1,
            "where height and width differ": shape[2] != shape[3],
            "for p = 1": p == 1,
            "for p of more than 2": p > 2,
        }
        cases.append(Case(f"x of shape {shape}, p = {p}", (normal(shape, 60 + seed), p), facts))
    return cases + on_gpu(cases[0])


def _moved(pattern: str) -> Callable:
    return lambda x, p: rearrange(x, pattern, p=p, q=p)


space_to_depth = Exercise(
    "4.3",
    "space_to_depth",
    answers04.space_to_depth,
    _pixel_cases,
    stub='''
def space_to_depth(x, p):
    """Stack each patch of p x p pixels into channels: a smaller map, and nothing is lost.

    x:       (B, C, H, W), with H and W multiples of p
    returns  (B, C * p * p, H / p, W / p); ordered by channel, then by row, then by column
             within the patch
    """
    raise NotImplementedError  # your code here
''',
    first="cut H into H/p patches of p rows, and W likewise. Which of the six axes go where?",
    tolerance=1e-6,
    mistakes=[
        Mistake(
            "plain_reshape",
            "A reshape alone does not move pixels: your channels hold pieces of rows, not patches. Move the axes with "
            f"rearrange or permute first ({HALVING}).",
            lambda x, p: x.reshape(x.shape[0], x.shape[1] * p * p, x.shape[2] // p, x.shape[3] // p),
        ),
        Mistake(
            "channel_last",
            "Each patch is whole, but its channels are ordered row, column, channel. Asked is channel, row, column, "
            f"which the weights of the course's checkpoint expect ({HALVING}).",
            _moved("b c (h p) (w q) -> b (p q c) h w"),
        ),
        Mistake(
            "column_first",
            f"Rows and columns within the patch are swapped in the order of the channels: (c p q) ({HALVING}).",
            _moved("b c (h p) (w q) -> b (c q p) h w"),
        ),
        Mistake(
            "column_first_channel_last",
            f"Each patch is whole, but the order of its channels is neither: first channel, then row, then column, "
            f"(c p q) ({HALVING}).",
            _moved("b c (h p) (w q) -> b (q p c) h w"),
        ),
        Mistake(
            "far_apart",
            "The pixels that you stack are H/p rows and W/p columns apart: you cut the image into p x p large tiles. "
            f"Neighbours belong together: (h p), not (p h) ({HALVING}).",
            _moved("b c (p h) (q w) -> b (c p q) h w"),
            _moved("b c (p h) (q w) -> b (p q c) h w"),
        ),
        Mistake(
            "rows_far_apart",
            f"Columns are right, but the rows that you stack are far apart: (h p), not (p h) ({HALVING}).",
            _moved("b c (p h) (w q) -> b (c p q) h w"),
        ),
        Mistake(
            "columns_far_apart",
            f"Rows are right, but the columns that you stack are far apart: (w q), not (q w) ({HALVING}).",
            _moved("b c (h p) (q w) -> b (c p q) h w"),
        ),
        Mistake(
            "turned",
            f"The map comes out transposed: height and width have changed places ({HALVING}).",
            _moved("b c (h p) (w q) -> b (c p q) w h"),
        ),
        Mistake(
            "averaged",
            f"That is the average of each patch. Keep all p x p pixels, as channels ({HALVING}).",
            lambda x, p: F.avg_pool2d(x, p),
        ),
        Mistake(
            "largest",
            f"That is the largest of each patch. Keep all p x p pixels, as channels ({HALVING}).",
            lambda x, p: F.max_pool2d(x, p),
        ),
        Mistake(
            "one_of_each",
            f"You keep one pixel of each patch and drop the others. All p x p become channels ({HALVING}).",
            lambda x, p: x[:, :, ::p, ::p],
            lambda x, p: x[:, :, ::p, ::p].repeat_interleave(p * p, dim=1),
            lambda x, p: x[:, :, ::p, ::p].repeat(1, p * p, 1, 1),
        ),
        Mistake(
            "patches_as_batch",
            f"Your patches went into the batch. They become channels of the same image ({HALVING}).",
            _moved("b c (h p) (w q) -> (b p q) c h w"),
            _moved("b c (h p) (w q) -> (b h w) c p q"),
        ),
        Mistake(
            "depth_to_space",
            f"That is the way back, from channels to pixels: the map grew ({HALVING}).",
            lambda x, p: F.pixel_shuffle(x, p),
        ),
    ],
)


# ---- 4.4


def _paint_cases() -> list[Case]:
    plan = [
        ((2, 2), 3, 2),
        ((3, 4), 3, 1),
        ((2, 3), 2, 2),
        ((4, 2), 4, 2),
        ((1, 1), 3, 2),
        ((3, 3), 2, 3),
        ((2, 5), 1, 2),
    ]
    cases = []
    for seed, (shape, k, stride) in enumerate(plan):
        facts = {
            "for stride 1": stride == 1,
            "for stride 2 and more": stride > 1,
            "where kernels overlap": k > stride and shape != (1, 1),
            "where kernels do not overlap": k <= stride,
            "where the kernel is smaller than the stride": k < stride,
            "where height and width differ": shape[0] != shape[1],
            "for a single pixel": shape == (1, 1),
        }
        label = f"x of shape {shape}, kernel {k} x {k}, stride {stride}"
        cases.append(Case(label, (normal(shape, 80 + seed), normal((k, k), 90 + seed), stride), facts))
    return cases + on_gpu(cases[0])


def _paint(
    stamp: Callable[[Tensor], Tensor] = lambda kernel: kernel,
    add: bool = True,
    size: Callable[[int, int, int], int] = lambda n, k, s: (n - 1) * s + k,
    place: Callable[[int, int, int], int] = lambda i, k, s: i * s,
) -> Callable:
    """Stamps a kernel for every pixel: right or wrong in the stamp, the overlap, the size or the place."""

    def function(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
        (h, w), k = x.shape, len(kernel)
        room = torch.zeros(4 * (h + k) * (stride + 1), 4 * (w + k) * (stride + 1))
        for i in range(h):
            for j in range(w):
                a, b = place(i, k, stride), place(j, k, stride)
                patch = room[a : a + k, b : b + k]
                patch.copy_(x[i, j] * stamp(kernel) + (patch if add else 0))
        return room[: size(h, k, stride), : size(w, k, stride)]

    return function


def _spread(x: Tensor, stride: int) -> Tensor:
    """x with stride - 1 zeros between neighbours."""
    out = x.new_zeros((x.shape[0] - 1) * stride + 1, (x.shape[1] - 1) * stride + 1)
    out[::stride, ::stride] = x
    return out


def _correlate(x: Tensor, kernel: Tensor, **how) -> Tensor:
    return F.conv2d(x[None, None], kernel[None, None], **how)[0, 0]


transposed_convolution = Exercise(
    "4.4",
    "transposed_convolution",
    answers04.transposed_convolution,
    _paint_cases,
    stub='''
def transposed_convolution(x, kernel, stride):
    """Every pixel of x paints the kernel, times its value; neighbours paint `stride` apart.

    x:       (H, W), one image with one channel
    kernel:  (k, k)
    returns  ((H - 1) * stride + k, (W - 1) * stride + k); where paint overlaps it adds up
    """
    raise NotImplementedError  # your code here
''',
    first="make the output full of zeros. Where does pixel (i, j) put the upper left corner of its kernel?",
    tolerance=1e-5,
    mistakes=[
        Mistake(
            "overwritten",
            f"Where kernels overlap, the later one covers the earlier. They *add up*: += ({DOUBLING}).",
            _paint(add=False),
        ),
        Mistake(
            "flipped",
            "Your kernel is turned by 180 degrees. A pixel paints the kernel as it is; turning it belongs to the "
            f"version with inserted zeros, which slides a window ({DOUBLING}).",
            _paint(lambda kernel: kernel.flip(0, 1)),
        ),
        Mistake(
            "kernel_transposed",
            f"Your kernel is mirrored at its diagonal: rows and columns have changed places ({DOUBLING}).",
            _paint(lambda kernel: kernel.T),
        ),
        Mistake(
            "ordinary_convolution",
            "That is an ordinary convolution: it reads a window for every output. Here every *input* paints one "
            f"({DOUBLING}).",
            lambda x, kernel, stride: _correlate(x, kernel, stride=stride, padding=len(kernel) - 1),
            lambda x, kernel, stride: _correlate(x, kernel, stride=stride, padding=len(kernel) // 2),
        ),
        Mistake(
            "stride_ignored",
            f"You ignore the stride: neighbouring pixels paint `stride` apart, not 1 ({DOUBLING}).",
            _paint(place=lambda i, k, s: i, size=lambda n, k, s: n - 1 + k),
            _paint(place=lambda i, k, s: i),
        ),
        Mistake(
            "kernel_apart",
            "You paint the kernels side by side, k apart. They are `stride` apart, and overlap where k is larger "
            f"({DOUBLING}).",
            _paint(place=lambda i, k, s: i * k, size=lambda n, k, s: n * k),
            _paint(place=lambda i, k, s: i * k),
        ),
        Mistake(
            "cropped_to_multiple",
            "Your output has stride * H rows. The last pixel paints a whole kernel, so there are (H - 1) * stride + k "
            f"({DOUBLING}).",
            _paint(size=lambda n, k, s: n * s),
            lambda x, kernel, stride: _paint()(x, kernel, stride)[: x.shape[0] * stride, : x.shape[1] * stride],
        ),
        Mistake(
            "one_too_large",
            "Your output is too large: the first kernel takes k, each further one adds stride, (H - 1) * stride + k "
            f"({DOUBLING}).",
            _paint(size=lambda n, k, s: n * s + k),
            _paint(size=lambda n, k, s: n * s + k - 1),
        ),
        Mistake(
            "padded_like_layers",
            "The border is cut off, as a layer with padding does. Asked is the whole picture, with padding 0 "
            f"({DOUBLING}).",
            lambda x, kernel, stride: (
                _paint()(x, kernel, stride)[1:-1, 1:-1] if len(kernel) > 2 else _paint()(x, kernel, stride)
            ),
        ),
        Mistake(
            "window_not_flipped",
            "Zeros between the pixels and a sliding window are a right way, but the window has to be turned by 180 "
            f"degrees and the zeros put around x as well, k - 1 of them ({DOUBLING}).",
            lambda x, kernel, stride: _correlate(_spread(x, stride), kernel, padding=len(kernel) // 2),
        ),
        Mistake(
            "nearest",
            "You repeat pixels and convolve: that is the other way of doubling. Here every pixel paints a kernel "
            f"({DOUBLING}).",
            lambda x, kernel, stride: _correlate(
                x.repeat_interleave(stride, 0).repeat_interleave(stride, 1), kernel, padding=len(kernel) // 2
            ),
            lambda x, kernel, stride: _correlate(
                x.repeat_interleave(stride, 0).repeat_interleave(stride, 1), kernel, padding=len(kernel) - 1
            ),
        ),
        Mistake(
            "averaged",
            f"You average where kernels overlap. They add up, whatever their number ({DOUBLING}).",
            lambda x, kernel, stride: (
                _paint()(x, kernel, stride) / _paint()(torch.ones_like(x), torch.ones_like(kernel), stride).clamp(min=1)
            ),
        ),
    ],
)


# ---- 4.5


def _width_cases() -> list[Case]:
    plan = [
        ((32, 64), 1), ((16, 32, 64), 1), ((48, 96), 2), ((8,), 1), ((64, 32), 1),
        ((16, 16, 16), 2), ((8, 24, 40, 56), 3),
    ]  # fmt: skip
    return [
        Case(
            f"widths {widths}, blocks = {blocks}",
            (widths, blocks),
            {
                "for one level": len(widths) == 1,
                "for more than two levels": len(widths) > 2,
                "for more than one block a level": blocks > 1,
                "where the widths fall": widths == (64, 32),
            },
        )
        for widths, blocks in plan
    ]


def _count(
    *, stem: bool = True, resampled: bool = True, more: int = 1, first_in: bool = False, own_width: bool = False,
    late_width: bool = False, join: Callable[[int, int], int] = lambda below, skip: below + skip,
) -> Callable:  # fmt: skip
    """Counts the channels on the way up, right or wrong."""

    def function(widths, blocks: int) -> list[int]:
        skips = [widths[0]] if stem else []
        for level, width in enumerate(widths):
            skips += [width] * blocks
            if resampled and level < len(widths) - 1:
                skips.append(width)
        inputs, width = [], widths[-1]
        for w in reversed(widths):
            for _ in range(blocks + more):
                if own_width:
                    width = w
                inputs.append(join(width, skips.pop(0 if first_in else -1)))
                if not late_width:
                    width = w
            width = w
        return inputs

    return function


skip_channels = Exercise(
    "4.5",
    "skip_channels",
    answers04.skip_channels,
    _width_cases,
    stub='''
def skip_channels(widths, blocks):
    """The number of input channels of every block on the way up, in the order they run.

    widths:  channels of each level, the top one first
    blocks:  blocks a level on the way down; on the way up every level has one more
    returns  a list of ints, len(widths) * (blocks + 1) of them
    """
    raise NotImplementedError  # your code here
''',
    first="go down first, with a list: write down the channels of every map that is kept, from the stem's on.",
    mistakes=[
        Mistake(
            "skips_forgotten",
            "These are the channels that come from below. Each block also reads a skip: add its channels "
            f"({COUNTING}).",
            _count(join=lambda below, skip: below),
        ),
        Mistake(
            "only_skips",
            f"These are the channels of the skips. Add what comes from below ({COUNTING}).",
            _count(join=lambda below, skip: skip),
        ),
        Mistake(
            "doubled",
            "You double a width. The skip and what comes from below agree only inside a level: at its borders they "
            f"have different widths ({COUNTING}).",
            lambda widths, blocks: [2 * w for w in reversed(widths) for _ in range(blocks + 1)],
        ),
        Mistake(
            "outputs",
            f"These are the channels that the blocks put out. Asked is what they take in ({COUNTING}).",
            lambda widths, blocks: [w for w in reversed(widths) for _ in range(blocks + 1)],
        ),
        Mistake(
            "first_skip_first",
            "You read the skips in the order in which they were made. The last one made is read first: a stack, "
            f"pop() and not pop(0) ({COUNTING}).",
            _count(first_in=True),
        ),
        Mistake(
            "own_width_from_below",
            "The first block of a level is still fed by the level *below*, with that one's channels: the width changes "
            f"inside it ({COUNTING}).",
            _count(own_width=True),
        ),
        Mistake(
            "width_not_updated",
            "Only the first block of a level takes the channels of the level below. After it the width is the level's "
            f"own ({COUNTING}).",
            _count(late_width=True),
        ),
        Mistake(
            "no_stem",
            "The stem's output is a skip, too: it is the first one that you keep. Without it, each level's blocks read "
            f"one too early ({COUNTING}).",
            lambda widths, blocks: _count(join=lambda below, skip: below + skip)(widths, blocks)[:-1],
            lambda widths, blocks: _count()(widths, blocks)[:-1] + [widths[0]],
        ),
        Mistake(
            "no_resampled",
            "The maps after downsampling are kept as well. They are why every level has one block more on the way up "
            f"({COUNTING}).",
            _count(resampled=False, more=0),
            lambda widths, blocks: [
                w + below
                for below, w in zip((widths[-1], *widths[:0:-1]), reversed(widths), strict=True)
                for _ in range(blocks)
            ],
        ),
        Mistake(
            "one_block_short",
            f"There are blocks + 1 on the way up, on every level: one for each map that was kept ({COUNTING}).",
            _count(more=0),
        ),
        Mistake(
            "top_first",
            f"The list begins at the top. On the way up the lowest level runs first ({COUNTING}).",
            lambda widths, blocks: answers04.skip_channels(widths, blocks)[::-1],
        ),
        Mistake(
            "resampled_has_next_width",
            "Downsampling here keeps the channels: the first block of the next level changes them. So the skip after "
            f"it has the width of the level above ({COUNTING}).",
            lambda widths, blocks: _next_width(widths, blocks),
        ),
    ],
)


def _next_width(widths, blocks: int) -> list[int]:
    skips = [widths[0]] + [widths[0]] * blocks
    for _, width in pairwise(widths):
        skips += [width] * (blocks + 1)
    inputs, width = [], widths[-1]
    for w in reversed(widths):
        for _ in range(blocks + 1):
            inputs.append(width + skips.pop())
            width = w
    return inputs


# ---- 4.6


def _perturbed(net: nn.Module, seed: int) -> nn.Module:
    """Layers that start at 0 would hide what comes before them."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, device="cpu")
            parameter.copy_(drawn / max(parameter[0].numel(), 4) ** 0.5 if parameter.ndim > 1 else 1 + 0.5 * drawn)
    return net.eval()


def _block_cases() -> list[Case]:
    plan = [
        (8, 8, 0.0, (2, 5, 4)),
        (8, 16, 0.0, (2, 4, 6)),
        (16, 8, 0.0, (1, 3, 3)),
        (8, 8, 0.5, (3, 4, 4)),
        (8, 16, 0.5, (2, 4, 4)),
    ]
    cases = []
    for seed, (c_in, c_out, dropout, (b, h, w)) in enumerate(plan):
        block = _perturbed(Block(c_in, c_out, 12, dropout), seed).train(dropout > 0)
        facts = {
            "where the channels change": c_in != c_out,
            "where the channels stay the same": c_in == c_out,
            "with dropout on": dropout > 0,
        }
        label = f"{c_in} to {c_out} channels{', dropout on' * (dropout > 0)}"
        cases.append(Case(label, (block, normal((b, c_in, h, w), 100 + seed), normal((b, 12), 110 + seed)), facts))
    return cases


def _forward(
    *,
    before1: Callable = lambda block, x: F.silu(block.norm1(x)),
    between: Callable | None = None,
    modulate: Callable = lambda h, a, b: h * (1 + a) + b,
    split: Callable = lambda code: code.chunk(2, dim=1),
    after: Callable = F.silu,
    drop: bool = True,
    end: Callable = lambda block, x, h: block.skip(x) + h,
    code: Callable = lambda embedding: embedding,
) -> Callable:
    """A residual block's forward pass, right or wrong."""

    def function(block: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        h = block.conv1(before1(block, x))
        a, b = split(block.scale_shift(code(embedding))[:, :, None, None])
        h = between(block, h, a, b) if between else modulate(block.norm2(h), a, b)
        h = after(h)
        if drop:
            h = block.dropout(h)
        return end(block, x, block.conv2(h))

    return function


def _dropped_last(block: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    h = _forward(drop=False, end=lambda block, x, h: h)(block, x, embedding)
    return block.skip(x) + block.dropout(h)


residual_forward = Exercise(
    "4.6",
    "residual_forward",
    answers04.residual_forward,
    _block_cases,
    stub='''
def residual_forward(block, x, embedding):
    """What a residual block does with its layers.

    block:      holds norm1, conv1, scale_shift, norm2, dropout, conv2, skip
    x:          (B, c_in, H, W)
    embedding:  (B, E), code of time and class; block.scale_shift takes it to (B, 2 * c_out)
    returns     (B, c_out, H, W)
    """
    raise NotImplementedError  # your code here
''',
    first="write the plain block without time: norm1, SiLU, conv1, norm2, SiLU, dropout, conv2, and the skip around.",
    mistakes=[
        Mistake(
            "no_skip",
            f"The skip is missing: add block.skip(x) to what the convolutions make ({BLOCK}).",
            _forward(end=lambda block, x, h: h),
        ),
        Mistake(
            "skip_not_projected",
            "You add x itself. Where the channels change it does not fit, or broadcasts: block.skip(x) is x where they "
            f"do not, and a 1x1 convolution where they do ({BLOCK}).",
            _forward(end=lambda block, x, h: x + h),
        ),
        Mistake(
            "skip_normalised",
            f"Your skip carries the normalised x. It goes around everything: block.skip(x) ({BLOCK}).",
            _forward(end=lambda block, x, h: block.skip(block.norm1(x)) + h),
            _forward(end=lambda block, x, h: block.skip(F.silu(block.norm1(x))) + h),
        ),
        Mistake(
            "skip_activated",
            "You activate the sum. The skip must stay open from end to end, so that signal and gradient pass unchanged "
            f"({BLOCK}).",
            _forward(end=lambda block, x, h: F.silu(block.skip(x) + h)),
        ),
        Mistake(
            "no_one_plus",
            "You multiply by the scale. It is 1 + scale: a code of 0 then leaves the map as it is, where yours would "
            f"erase it ({BLOCK}).",
            _forward(modulate=lambda h, a, b: h * a + b),
        ),
        Mistake(
            "scale_and_shift_swapped",
            f"Scale and shift are swapped: the first half of the channels is the scale ({BLOCK}).",
            _forward(modulate=lambda h, a, b: h * (1 + b) + a),
        ),
        Mistake(
            "shift_only",
            f"You add the shift and drop the scale: norm2(h) * (1 + scale) + shift ({BLOCK}).",
            _forward(modulate=lambda h, a, b: h + b),
        ),
        Mistake(
            "scale_only",
            f"You use the scale and drop the shift: norm2(h) * (1 + scale) + shift ({BLOCK}).",
            _forward(modulate=lambda h, a, b: h * (1 + a)),
        ),
        Mistake(
            "time_ignored",
            f"The code never comes in. A block that does not hear of t treats every noise level alike ({BLOCK}).",
            _forward(modulate=lambda h, a, b: h),
        ),
        Mistake(
            "time_before_norm",
            f"Scale and shift come before norm2, which takes most of them away again. They follow it ({BLOCK}).",
            _forward(between=lambda block, h, a, b: block.norm2(h * (1 + a) + b)),
        ),
        Mistake(
            "time_after_activation",
            f"Scale and shift come after the SiLU. They belong between norm2 and SiLU ({BLOCK}).",
            _forward(between=lambda block, h, a, b: F.silu(block.norm2(h)) * (1 + a) + b, after=lambda h: h),
        ),
        Mistake(
            "interleaved",
            "You take scale and shift from every second channel. chunk(2, dim=1) takes the first and the second half "
            f"({BLOCK}).",
            _forward(split=lambda code: (code[:, ::2], code[:, 1::2])),
        ),
        Mistake(
            "no_norm1",
            f"norm1 is missing: every convolution is preceded by norm and SiLU ({BLOCK}).",
            _forward(before1=lambda block, x: F.silu(x)),
        ),
        Mistake(
            "no_norm2",
            f"norm2 is missing: scale and shift act on what it has normalised ({BLOCK}).",
            _forward(between=lambda block, h, a, b: h * (1 + a) + b),
        ),
        Mistake(
            "no_first_activation",
            f"The first SiLU is missing, between norm1 and conv1 ({BLOCK}).",
            _forward(before1=lambda block, x: block.norm1(x)),
        ),
        Mistake(
            "no_second_activation",
            f"The second SiLU is missing, before conv2: two convolutions with nothing between them are one ({BLOCK}).",
            _forward(after=lambda h: h),
        ),
        Mistake(
            "activated_before_norm",
            f"SiLU comes before the norm. The order is norm, SiLU, convolution ({BLOCK}).",
            _forward(before1=lambda block, x: block.norm1(F.silu(x))),
            _forward(
                before1=lambda block, x: block.norm1(F.silu(x)),
                between=lambda block, h, a, b: block.norm2(F.silu(h)) * (1 + a) + b,
                after=lambda h: h,
            ),
        ),
        Mistake(
            "relu",
            f"The activation is SiLU, x · sigmoid(x): F.silu ({BLOCK}).",
            _forward(before1=lambda block, x: F.relu(block.norm1(x)), after=F.relu),
            _forward(before1=lambda block, x: F.gelu(block.norm1(x)), after=F.gelu),
        ),
        Mistake(
            "no_dropout",
            f"block.dropout is missing: it comes right before conv2 ({BLOCK}).",
            _forward(drop=False),
        ),
        Mistake(
            "dropout_last",
            f"Dropout comes after conv2. It comes right before it ({BLOCK}).",
            _dropped_last,
        ),
        Mistake(
            "code_activated_twice",
            f"The code has been through its SiLU already: block.scale_shift(embedding) ({BLOCK}).",
            _forward(code=F.silu),
        ),
    ],
)


# ---- 4.7


def _net_cases() -> list[Case]:
    plan = [
        (dict(widths=(8, 16), heads=2), None),
        (dict(widths=(8,), heads=2, num_classes=3), (0, 2, 3)),
        (dict(widths=(8,), heads=2, num_classes=3), None),
        (dict(channels=2, widths=(8, 8, 8), patch=1, heads=4), None),
        (dict(channels=3, widths=(8,), blocks=2, heads=2), None),
    ]
    cases = []
    for seed, (arguments, labels) in enumerate(plan):
        net = _perturbed(MyUNet(**arguments), seed)
        x, t = normal((3, net.channels, 8, 4), 120 + seed), torch.tensor([1, 40, 700], device="cpu")
        y = torch.tensor(labels, device="cpu") if labels else None
        classes = net.num_classes is not None
        facts = {
            "for a network without classes": not classes,
            "for a network with classes": classes,
            "for a network with classes and y=None": classes and y is None,
            "where labels are given": y is not None,
            "for patch = 1": net.patch == 1,
            "for patch = 2": net.patch == 2,
            "for more than two levels": len(arguments["widths"]) > 2,
            "for more than one channel": net.channels > 1,
        }
        label = f"widths {arguments['widths']}, patch {net.patch}, {net.num_classes or 'no'} classes, y = {labels}"
        cases.append(Case(label, (net, x, t, y), facts))
    return cases


def _assembled(
    *,
    activate: Callable = F.silu,
    null: Callable = lambda net: net.num_classes,
    label: bool = True,
    time: Callable = lambda t: t,
    take: int = -1,
    join: Callable = lambda h, skip: torch.cat([h, skip], dim=1),
    middle: Callable = lambda net, h, emb: net.middle2(net.attention(net.middle1(h, emb)), emb),
    end: Callable = lambda net, h: F.silu(net.norm(h)),
    pixels: Callable = F.pixel_shuffle,
    patches: Callable = answers04.space_to_depth,
    result: Callable = lambda x, out: out,
    mlp: Callable = lambda net, code: net.time(code),
    code: Callable = answers04.sinusoidal_embedding,
) -> Callable:
    """The network's forward pass, right or wrong."""

    def function(net: nn.Module, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = mlp(net, code(time(t), net.time[0].in_features))
        if net.label is not None and label:
            emb = emb + net.label(torch.full_like(t, null(net)) if y is None else y)
        emb = activate(emb)
        h = net.stem(patches(x, net.patch))
        skips = [h]
        for layer in net.down:
            h = layer(h) if isinstance(layer, nn.Conv2d) else layer(h, emb)
            skips.append(h)
        h = middle(net, h, emb)
        for layer in net.up:
            h = layer(h) if isinstance(layer, nn.Sequential) else layer(join(h, skips.pop(take)), emb)
        return result(x, pixels(net.out(end(net, h)), net.patch))

    return function


unet_forward = Exercise(
    "4.7",
    "unet_forward",
    answers04.unet_forward,
    _net_cases,
    stub='''
def unet_forward(net, x, t, y=None):
    """The forward pass of a small U-Net, from layers that are there.

    net:     holds time, label, stem, down, middle1, attention, middle2, up, norm, out,
             and the numbers patch and num_classes
    x:       (B, C, H, W) noisy images
    t:       (B,) integers in 1...T
    y:       (B,) labels, or None: then all are the null class, label number net.num_classes
    returns  (B, C, H, W)
    """
    raise NotImplementedError  # your code here
''',
    first="make the code: sinusoidal_embedding(t, net.time[0].in_features), through net.time. Then follow the figure.",
    given=MyUNet,
    alternatives=[
        Mistake(
            "other code for t",
            "Every connection is right. Your code for t has another order or spacing than the checkpoint's, so the "
            f"bundled weights will not fit: for the test below, write exercise 4.1 with cosines first ({CODE}).",
            *(_assembled(code=code) for code in _OTHER_CODES),
        ),
    ],
    mistakes=[
        Mistake(
            "code_not_activated",
            f"The code goes to the blocks without its SiLU: F.silu after time and label are added ({ASSEMBLY}).",
            _assembled(activate=lambda emb: emb),
        ),
        Mistake(
            "code_not_through_mlp",
            f"The sinusoidal code skips net.time, the two linear layers that make it useful ({ASSEMBLY}).",
            _assembled(mlp=lambda net, code: code),
        ),
        Mistake(
            "null_class_0",
            "Without labels you use class 0, which is a class like any other. The null class is number num_classes, "
            f"the last row ({ASSEMBLY}).",
            _assembled(null=lambda net: 0),
        ),
        Mistake(
            "null_class_left_out",
            "Without labels you add nothing. A network that knows classes then takes the null class: label number "
            f"num_classes ({ASSEMBLY}).",
            lambda net, x, t, y=None: _assembled(label=y is not None)(net, x, t, y),
        ),
        Mistake(
            "labels_ignored",
            f"The labels never come in: add net.label(y) to the code ({ASSEMBLY}).",
            _assembled(label=False),
            lambda net, x, t, y=None: answers04.unet_forward(net, x, t, None),
        ),
        Mistake(
            "skip_first",
            "You put the skip before the map from below. The weights of the course's checkpoint expect it behind: "
            f"cat([h, skip]) ({ASSEMBLY}).",
            _assembled(join=lambda h, skip: torch.cat([skip, h], dim=1)),
        ),
        Mistake(
            "skips_erased",
            f"Your blocks on the way up read zeros where the skips belong ({ASSEMBLY}).",
            _assembled(join=lambda h, skip: torch.cat([h, 0 * skip], dim=1)),
            _assembled(join=lambda h, skip: torch.cat([h, h.repeat(1, 9, 1, 1)[:, : skip.shape[1]]], dim=1)),
        ),
        Mistake(
            "no_attention",
            f"net.attention is missing, between the two middle blocks ({ASSEMBLY}).",
            _assembled(middle=lambda net, h, emb: net.middle2(net.middle1(h, emb), emb)),
        ),
        Mistake(
            "attention_last",
            f"Attention comes after both middle blocks. It belongs between them ({ASSEMBLY}).",
            _assembled(middle=lambda net, h, emb: net.attention(net.middle2(net.middle1(h, emb), emb))),
        ),
        Mistake(
            "attention_first",
            f"Attention comes before both middle blocks. It belongs between them ({ASSEMBLY}).",
            _assembled(middle=lambda net, h, emb: net.middle2(net.middle1(net.attention(h), emb), emb)),
        ),
        Mistake(
            "no_middle2",
            f"The second middle block is missing, after the attention ({ASSEMBLY}).",
            _assembled(middle=lambda net, h, emb: net.attention(net.middle1(h, emb))),
        ),
        Mistake(
            "no_middle",
            f"The middle is missing: middle1, attention, middle2 ({ASSEMBLY}).",
            _assembled(middle=lambda net, h, emb: h),
        ),
        Mistake(
            "no_last_norm",
            f"net.norm is missing before the last convolution ({ASSEMBLY}).",
            _assembled(end=lambda net, h: F.silu(h)),
        ),
        Mistake(
            "no_last_activation",
            f"The SiLU between net.norm and net.out is missing ({ASSEMBLY}).",
            _assembled(end=lambda net, h: net.norm(h)),
        ),
        Mistake(
            "pixels_misplaced",
            "The patches come apart in another order than they were put together in: channel, row, column, as in "
            f"space_to_depth ({ASSEMBLY}).",
            _assembled(pixels=lambda h, p: rearrange(h, "b (p q c) h w -> b c (h p) (w q)", p=p, q=p)),
            _assembled(pixels=lambda h, p: rearrange(h, "b (c q p) h w -> b c (h p) (w q)", p=p, q=p)),
            _assembled(pixels=lambda h, p: rearrange(h, "b (c p q) h w -> b c (p h) (q w)", p=p, q=p)),
            _assembled(pixels=lambda h, p: h.reshape(h.shape[0], -1, h.shape[2] * p, h.shape[3] * p)),
        ),
        Mistake(
            "patches_misplaced",
            f"The patches are stacked in another order than space_to_depth has: channel, row, column ({ASSEMBLY}).",
            _assembled(patches=lambda x, p: rearrange(x, "b c (h p) (w q) -> b (p q c) h w", p=p, q=p)),
            _assembled(patches=lambda x, p: rearrange(x, "b c (h p) (w q) -> b (c q p) h w", p=p, q=p)),
        ),
        Mistake(
            "time_scaled",
            f"You divide t by 1000. The frequencies of the code are made for t as it is ({CODE}).",
            _assembled(time=lambda t: t / 1000),
        ),
        Mistake(
            "time_from_0",
            f"You take t - 1. Here t counts from 1, for the network as well ({ASSEMBLY}).",
            _assembled(time=lambda t: t - 1),
        ),
        Mistake(
            "input_added",
            f"You add x to the output. The network's skips are inside; what it returns is net.out's ({ASSEMBLY}).",
            _assembled(result=lambda x, out: x + out),
            _assembled(result=lambda x, out: x - out),
        ),
        Mistake(
            "squashed",
            f"You squash the output to [-1, 1]. Noise is not bounded: return it as it is ({ASSEMBLY}).",
            _assembled(result=lambda x, out: out.tanh()),
            _assembled(result=lambda x, out: out.clamp(-1, 1)),
        ),
    ],
)
