"""Lesson 04's exercises: wrong answers typed as students type them, and right ones that differ in structure."""

import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typed
from einops import rearrange
from torch import nn

from ddpm_course import checks
from ddpm_course.checks import library
from ddpm_course.checks.entries import CannotSave
from ddpm_course.exercises import lesson04
from ddpm_course.training import load_pretrained

LESSON = {name: getattr(lesson04, name) for name in ("sinusoidal_embedding", "space_to_depth")}
judge = functools.partial(typed.judge, **LESSON)


FREQ = (
    "half = dim // 2\nf = torch.exp(-math.log(10000) * torch.arange(half) / half)\na = t.float()[:, None] * f[None]\n"
)
BLOCK = """
h = block.conv1(F.silu(block.norm1(x)))
scale, shift = block.scale_shift(embedding)[:, :, None, None].chunk(2, dim=1)
h = F.silu(block.norm2(h) * (1 + scale) + shift)
h = block.conv2(block.dropout(h))
return block.skip(x) + h
"""
NET = """
emb = net.time(sinusoidal_embedding(t, net.time[0].in_features))
if net.label is not None:
    if y is None:
        y = torch.full_like(t, net.num_classes)
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
return rearrange(h, "b (c p q) h w -> b c (h p) (w q)", p=net.patch, q=net.patch)
"""
UP = """
skips = [widths[0]]
for i, w in enumerate(widths):
    for _ in range(blocks):
        skips.append(w)
    if i + 1 < len(widths):
        skips.append(w)
out = []
c = widths[-1]
for w in widths[::-1]:
    for _ in range(blocks + 1):
        out.append(c + skips.pop())
        c = w
return out
"""
PAINT = """
H, W = x.shape
k = kernel.shape[0]
y = torch.zeros((H - 1) * stride + k, (W - 1) * stride + k)
for i in range(H):
    for j in range(W):
        y[i * stride : i * stride + k, j * stride : j * stride + k] += x[i, j] * kernel
return y
"""


def change(text, *pairs):
    """The text with lines changed, each of which must be there."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


WRONG = [
    # 4.1
    (
        "sinusoidal_embedding",
        "f = 10000 ** (-2 * torch.arange(dim) / dim)\ne = t[:, None] * f\ne[0::2] = torch.sin(e[0::2])\ne[1::2] = torch.cos(e[1::2])\nreturn e",
        "wrong_axis",
    ),
    (
        "sinusoidal_embedding",
        "e = t[:, None] / 10000 ** (torch.arange(dim) / dim)\nreturn torch.where(t[:, None] % 2 == 0, e.sin(), e.cos())",
        "wrong_axis",
    ),
    (
        "sinusoidal_embedding",
        "n = int(t.max()) + 1\ne = torch.arange(n)[:, None] / 10000 ** (2 * torch.arange(dim) / dim)\nm = torch.arange(0, n, 2)\ne[m] = torch.sin(e[m])\ne[1 - m] = torch.cos(e[m])\nreturn e[t]",
        "wrong_axis",
    ),
    ("sinusoidal_embedding", FREQ + "return torch.cat([a.sin(), a.sin()], 1)", "sin_only"),
    ("sinusoidal_embedding", "torch.sin(t[:, None] / 10000 ** (torch.arange(dim) / dim))", "sin_only"),
    ("sinusoidal_embedding", FREQ + "return torch.cat([a.cos(), a.cos()], 1)", "cos_only"),
    ("sinusoidal_embedding", FREQ.replace("t.float()", "(t / 1000)") + "return torch.cat([a.cos(), a.sin()], 1)", "unit_interval"),
    ("sinusoidal_embedding", FREQ.replace("t.float()", "(t / 1000)") + "return torch.cat([a.sin(), a.cos()], 1)", "unit_interval"),
    ("sinusoidal_embedding", FREQ.replace("exp(-math", "exp(math") + "return torch.cat([a.cos(), a.sin()], 1)", "frequencies_grow"),
    ("sinusoidal_embedding", FREQ.replace("-math.log(10000) * torch", "-torch") + "return torch.cat([a.cos(), a.sin()], 1)", "logarithm_forgotten"),
    ("sinusoidal_embedding", FREQ.replace("/ half)", "/ dim)") + "return torch.cat([a.cos(), a.sin()], 1)", "half_the_range"),
    ("sinusoidal_embedding", FREQ.replace("* torch.arange", "* 2 * torch.arange") + "return torch.cat([a.sin(), a.cos()], 1)", "twice_the_range"),
    ("sinusoidal_embedding", FREQ + "return torch.cat([a.cos(), a.sin()])", "joined_over_batch"),
    ("sinusoidal_embedding", FREQ.replace("t.float()", "(t.float() - 1)") + "return torch.cat([a.cos(), a.sin()], -1)", "counted_from_0"),
    ("sinusoidal_embedding", FREQ.replace("t.float()", "(2 * torch.pi * t)") + "return torch.cat([a.cos(), a.sin()], -1)", "turns"),
    ("sinusoidal_embedding", FREQ + "return torch.cat([a, a], 1)", "angles"),
    # 4.2
    ("attention", "(q @ k.mT / math.sqrt(q.shape[-1])).softmax(-2) @ v", "softmax_over_queries"),
    ("attention", "torch.softmax(q @ k.transpose(-1, -2) / q.size(-1) ** 0.5, 1) @ v", "softmax_over_heads"),
    ("attention", "torch.softmax(q @ k.transpose(-1, -2) / q.size(-1) ** 0.5, 0) @ v", "softmax_over_batch"),
    ("attention", "torch.softmax(q @ k.transpose(2, 3), dim=-1) @ v", "no_scale"),
    ("attention", "h, d = q.shape[1], q.shape[3]\nreturn (q @ k.mT * (h * d) ** -0.5).softmax(-1) @ v", "scale_all_channels"),
    ("attention", "(q @ k.mT / q.shape[-1]).softmax(-1) @ v", "scale_not_rooted"),
    ("attention", "(q @ k.mT * q.shape[-1] ** 0.5).softmax(-1) @ v", "scale_multiplied"),
    ("attention", "(q @ k.mT / q.shape[2] ** 0.5).softmax(-1) @ v", "scale_positions"),
    ("attention", "(q @ k.mT).softmax(-1) @ v / q.shape[-1] ** 0.5", "scaled_late"),
    ("attention", "(q @ k.mT / q.shape[-1] ** 0.5) @ v", "no_softmax"),
    ("attention", "torch.sigmoid(q @ k.mT / q.shape[-1] ** 0.5) @ v", "sigmoid"),
    ("attention", "(k @ q.mT / q.shape[-1] ** 0.5).softmax(-1) @ v", "roles_swapped"),
    ("attention", "(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mT @ v", "weights_transposed"),
    ("attention", "(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ k", "keys_for_values"),
    ("attention", "(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)", "weights_returned"),
    (
        "attention",
        "q, k, v = (a.transpose(1, 2) for a in (q, k, v))\nreturn F.scaled_dot_product_attention(q, k, v).transpose(1, 2)",
        "over_heads",
    ),
    (
        "attention",
        "b, h, n, d = q.shape\nq, k, v = (a.transpose(1, 2).reshape(b, n, h * d) for a in (q, k, v))\nw = (q @ k.mT / math.sqrt(h * d)).softmax(-1)\nreturn (w @ v).reshape(b, n, h, d).transpose(1, 2)",
        "heads_merged",
    ),
    (
        "attention",
        "b, h, n, d = q.shape\nq, k, v = (a.reshape(b, n, h, d).transpose(1, 2) for a in (q, k, v))\nreturn F.scaled_dot_product_attention(q, k, v)",
        "heads_and_positions_mixed",
    ),
    # 4.3
    ("space_to_depth", "B, C, H, W = x.shape\nreturn x.view(B, C * p * p, H // p, W // p)", "plain_reshape"),
    ("space_to_depth", "rearrange(x, 'b c (h p1) (w p2) -> b (p1 p2 c) h w', p1=p, p2=p)", "channel_last"),
    ("space_to_depth", "torch.cat([x[:, :, i::p, j::p] for i in range(p) for j in range(p)], 1)", "channel_last"),
    ("space_to_depth", "rearrange(x, 'b c (h p1) (w p2) -> b (c p2 p1) h w', p1=p, p2=p)", "column_first"),
    ("space_to_depth", "torch.cat([x[:, :, i::p, j::p] for j in range(p) for i in range(p)], 1)", "column_first_channel_last"),
    ("space_to_depth", "rearrange(x, 'b c (p h) (q w) -> b (c p q) h w', p=p, q=p)", "far_apart"),
    ("space_to_depth", "rearrange(x, 'b c (p h) (w q) -> b (c p q) h w', p=p, q=p)", "rows_far_apart"),
    ("space_to_depth", "rearrange(x, 'b c (h p) (q w) -> b (c p q) h w', p=p, q=p)", "columns_far_apart"),
    ("space_to_depth", "rearrange(x, 'b c (h p) (w q) -> b (c p q) w h', p=p, q=p)", "turned"),
    ("space_to_depth", "F.avg_pool2d(x, p)", "averaged"),
    ("space_to_depth", "F.max_pool2d(x, p, p)", "largest"),
    ("space_to_depth", "x[:, :, ::p, ::p]", "one_of_each"),
    ("space_to_depth", "rearrange(x, 'b c (h p) (w q) -> (b p q) c h w', p=p, q=p)", "patches_as_batch"),
    ("space_to_depth", "F.pixel_shuffle(x, p)", "depth_to_space"),
    # 4.4
    ("transposed_convolution", change(PAINT, (" += ", " = ")), "overwritten"),
    ("transposed_convolution", change(PAINT, ("* kernel", "* kernel.flip(0).flip(1)")), "flipped"),
    (
        "transposed_convolution",
        "k = len(kernel)\nz = torch.zeros((x.shape[0] - 1) * stride + 1, (x.shape[1] - 1) * stride + 1)\nz[::stride, ::stride] = x\nreturn F.conv2d(z[None, None], kernel[None, None], padding=k - 1)[0, 0]",
        "flipped",
    ),
    ("transposed_convolution", change(PAINT, ("* kernel", "* kernel.t()")), "kernel_transposed"),
    ("transposed_convolution", "F.conv2d(x[None, None], kernel[None, None], stride=stride, padding=len(kernel) - 1)[0, 0]", "ordinary_convolution"),
    ("transposed_convolution", change(PAINT, ("y[i * stride : i * stride + k, j * stride : j * stride + k]", "y[i : i + k, j : j + k]")), "stride_ignored"),
    ("transposed_convolution", "torch.from_numpy(np.kron(x, kernel))", "kernel_apart"),
    ("transposed_convolution", change(PAINT, ("return y", "return y[: H * stride, : W * stride]")), "cropped_to_multiple"),
    ("transposed_convolution", change(PAINT, ("(H - 1) * stride + k, (W - 1) * stride + k", "H * stride + k, W * stride + k")), "one_too_large"),
    ("transposed_convolution", change(PAINT, ("return y", "return y[1:-1, 1:-1] if k > 2 else y")), "padded_like_layers"),
    (
        "transposed_convolution",
        "z = torch.zeros((x.shape[0] - 1) * stride + 1, (x.shape[1] - 1) * stride + 1)\nz[::stride, ::stride] = x\nreturn F.conv2d(z[None, None], kernel[None, None], padding=len(kernel) // 2)[0, 0]",
        "window_not_flipped",
    ),
    (
        "transposed_convolution",
        "z = x.repeat_interleave(stride, 0).repeat_interleave(stride, 1)\nreturn F.conv2d(z[None, None], kernel[None, None], padding=len(kernel) // 2)[0, 0]",
        "nearest",
    ),
    ("transposed_convolution", "one = torch.ones_like\nf = F.conv_transpose2d\ny = f(x[None, None], kernel[None, None], stride=stride)\nc = f(one(x)[None, None], one(kernel)[None, None], stride=stride)\nreturn (y / c.clamp(min=1))[0, 0]", "averaged"),
    # 4.5
    ("skip_channels", change(UP, ("c + skips.pop()", "c")), "skips_forgotten"),
    ("skip_channels", change(UP, ("c + skips.pop()", "skips.pop()")), "only_skips"),
    ("skip_channels", "[2 * w for w in widths[::-1] for _ in range(blocks + 1)]", "doubled"),
    ("skip_channels", "[w for w in widths[::-1] for _ in range(blocks + 1)]", "outputs"),
    ("skip_channels", change(UP, ("skips.pop()", "skips.pop(0)")), "first_skip_first"),
    ("skip_channels", change(UP, ("out.append(c +", "out.append(w +")), "own_width_from_below"),
    ("skip_channels", change(UP, ("        c = w\n", "    c = w\n")), "width_not_updated"),
    ("skip_channels", change(UP, ("return out", "return out[:-1]")), "no_stem"),
    ("skip_channels", change(UP, ("    if i + 1 < len(widths):\n        skips.append(w)\n", ""), ("blocks + 1", "blocks")), "no_resampled"),
    ("skip_channels", change(UP, ("blocks + 1", "blocks")), "one_block_short"),
    ("skip_channels", change(UP, ("return out", "return out[::-1]")), "top_first"),
    ("skip_channels", change(UP, ("        skips.append(w)\nout", "        skips.append(widths[i + 1])\nout")), "resampled_has_next_width"),
    # 4.6
    ("residual_forward", change(BLOCK, ("block.skip(x) + h", "h")), "no_skip"),
    ("residual_forward", change(BLOCK, ("block.skip(x) + h", "x + h")), "skip_not_projected"),
    ("residual_forward", change(BLOCK, ("block.skip(x)", "block.skip(block.norm1(x))")), "skip_normalised"),
    ("residual_forward", change(BLOCK, ("block.skip(x) + h", "F.silu(h + block.skip(x))")), "skip_activated"),
    ("residual_forward", change(BLOCK, ("(1 + scale)", "scale")), "no_one_plus"),
    ("residual_forward", change(BLOCK, ("scale, shift =", "shift, scale =")), "scale_and_shift_swapped"),
    ("residual_forward", change(BLOCK, (" * (1 + scale)", "")), "shift_only"),
    ("residual_forward", change(BLOCK, (" + shift", "")), "scale_only"),
    ("residual_forward", change(BLOCK, (" * (1 + scale) + shift", "")), "time_ignored"),
    ("residual_forward", change(BLOCK, ("block.norm2(h) * (1 + scale) + shift", "block.norm2(h * (1 + scale) + shift)")), "time_before_norm"),
    ("residual_forward", change(BLOCK, ("F.silu(block.norm2(h) * (1 + scale) + shift)", "F.silu(block.norm2(h)) * (1 + scale) + shift")), "time_after_activation"),
    ("residual_forward", change(BLOCK, (".chunk(2, dim=1)", ".unflatten(1, (-1, 2)).unbind(2)")), "interleaved"),
    ("residual_forward", change(BLOCK, ("block.norm1(x)", "x")), "no_norm1"),
    ("residual_forward", change(BLOCK, ("block.norm2(h)", "h")), "no_norm2"),
    ("residual_forward", change(BLOCK, ("F.silu(block.norm1(x))", "block.norm1(x)")), "no_first_activation"),
    ("residual_forward", change(BLOCK, ("F.silu(block.norm2(h) * (1 + scale) + shift)", "block.norm2(h) * (1 + scale) + shift")), "no_second_activation"),
    ("residual_forward", change(BLOCK, ("F.silu(block.norm1(x))", "block.norm1(F.silu(x))")), "activated_before_norm"),
    ("residual_forward", BLOCK.replace("F.silu", "F.relu"), "relu"),
    ("residual_forward", change(BLOCK, ("block.dropout(h)", "h")), "no_dropout"),
    ("residual_forward", change(BLOCK, ("block.conv2(block.dropout(h))", "block.dropout(block.conv2(h))")), "dropout_last"),
    ("residual_forward", change(BLOCK, ("block.scale_shift(embedding)", "block.scale_shift(F.silu(embedding))")), "code_activated_twice"),
    # 4.7
    ("unet_forward", change(NET, ("emb = F.silu(emb)\n", "")), "code_not_activated"),
    ("unet_forward", change(NET, ("net.time(sinusoidal_embedding(t, net.time[0].in_features))", "sinusoidal_embedding(t, net.time[0].in_features)")), "code_not_through_mlp"),
    ("unet_forward", change(NET, ("torch.full_like(t, net.num_classes)", "torch.zeros_like(t)")), "null_class_0"),
    ("unet_forward", change(NET, ("if net.label is not None:", "if net.label is not None and y is not None:")), "null_class_left_out"),
    ("unet_forward", change(NET, ("if net.label is not None:", "if False:")), "labels_ignored"),
    ("unet_forward", change(NET, ("[h, skips.pop()]", "[skips.pop(), h]")), "skip_first"),
    ("unet_forward", change(NET, ("[h, skips.pop()]", "[h, torch.zeros_like(skips.pop())]")), "skips_erased"),
    ("unet_forward", change(NET, ("h = net.attention(h)\n", "")), "no_attention"),
    ("unet_forward", change(NET, ("h = net.attention(h)\nh = net.middle2(h, emb)", "h = net.middle2(h, emb)\nh = net.attention(h)")), "attention_last"),
    ("unet_forward", change(NET, ("h = net.middle1(h, emb)\nh = net.attention(h)", "h = net.attention(h)\nh = net.middle1(h, emb)")), "attention_first"),
    ("unet_forward", change(NET, ("h = net.middle2(h, emb)\n", "")), "no_middle2"),
    ("unet_forward", change(NET, ("h = net.norm(h)\n", "")), "no_last_norm"),
    ("unet_forward", change(NET, ("h = net.norm(h)\nh = F.silu(h)\n", "h = net.norm(h)\n")), "no_last_activation"),
    ("unet_forward", change(NET, ('"b (c p q) h w -> b c (h p) (w q)"', '"b (p q c) h w -> b c (h p) (w q)"')), "pixels_misplaced"),
    ("unet_forward", change(NET, ("space_to_depth(x, net.patch)", "rearrange(x, 'b c (h p) (w q) -> b (p q c) h w', p=net.patch, q=net.patch)")), "patches_misplaced"),
    ("unet_forward", change(NET, ("sinusoidal_embedding(t,", "sinusoidal_embedding(t / 1000,")), "time_scaled"),
    ("unet_forward", change(NET, ("sinusoidal_embedding(t,", "sinusoidal_embedding(t - 1,")), "time_from_0"),
    ("unet_forward", change(NET, ("return rearrange", "return x + rearrange")), "input_added"),
    ("unet_forward", change(NET, ("net.out(h)", "net.out(h).tanh()")), "squashed"),
]  # fmt: skip

LOCATED = [  # two mistakes at once, or one that no catalogue knows: never a name
    ("sinusoidal_embedding", FREQ.replace("t.float()", "(t / 1000)") + "return torch.cat([a.sin(), a.sin()], 1)", "values"),
    ("sinusoidal_embedding", FREQ.replace("10000", "1000") + "return torch.cat([a.cos(), a.sin()], 1)", "values"),
    ("sinusoidal_embedding", FREQ + "return torch.stack([a.cos(), a.sin()], 1)", "shape"),
    ("sinusoidal_embedding", FREQ + "return torch.cat([a.cos(), a.sin()], 1).half()", "dtype"),
    ("attention", "(q @ k.mT).softmax(-2) @ v", "values"),
    ("attention", "(q @ k / q.shape[-1] ** 0.5).softmax(-1) @ v", "raises"),
    ("attention", "q *= q.shape[-1] ** -0.5\nreturn (q @ k.mT).softmax(-1) @ v", "changed"),
    ("space_to_depth", "rearrange(x, 'b c (h p) (w q) -> b (p c q) h w', p=p, q=p)", "values"),
    ("transposed_convolution", change(PAINT, ("* kernel", "* kernel.t()"), (" += ", " = ")), "values"),
    ("transposed_convolution", PAINT.replace("return y", "print(y)"), "none"),
    ("skip_channels", change(UP, ("c + skips.pop()", "c + skips.pop(0)"), ("return out", "return out[::-1]")), "values"),
    ("skip_channels", change(UP, ("c + skips.pop()", "c * 1.5 + skips.pop()")), "type"),
    ("residual_forward", change(BLOCK, ("(1 + scale)", "scale"), ("block.skip(x) + h", "h")), "values"),
    ("unet_forward", change(NET, ("emb = F.silu(emb)\n", ""), ("h = net.attention(h)\n", "")), "values"),
    ("unet_forward", change(NET, ("skips = [h]", "skips = []")), "raises"),
    ("unet_forward", change(NET, ("skips.pop()", "skips.pop(0)")), "raises"),
]  # fmt: skip


@pytest.mark.parametrize("name, body, mistake", WRONG)
def test_the_mistake_is_named(name, body, mistake):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake) == ("wrong", mistake), verdict


@pytest.mark.parametrize("name, body, problem", LOCATED)
def test_what_no_catalogue_knows_is_located(name, body, problem):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake, verdict.problem) == ("wrong", None, problem), verdict


def test_every_mistake_of_the_catalogue_is_typed_once():
    named = {(name, mistake) for name, _, mistake in WRONG}
    known = {(e.name, m.id) for e in checks.EXERCISES if e.lesson == "04" for m in e.mistakes}
    assert known - named == {("unet_forward", "no_middle")}


# ---- right answers


def code_interleaved(t, dim):
    codes = torch.zeros(len(t), dim)
    for i in range(dim // 2):
        codes[:, 2 * i] = (t * 10000 ** (-2 * i / dim)).sin()
        codes[:, 2 * i + 1] = (t * 10000 ** (-2 * i / dim)).cos()
    return codes


def code_numpy(t, dim):
    angles = np.outer(t.numpy(), 10000.0 ** (-np.arange(dim // 2) / (dim // 2)))
    return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


def code_polar(t, dim):
    frequencies = torch.logspace(0, -4, dim // 2 + 1, dtype=torch.float64)[:-1]
    turned = torch.polar(torch.ones(1, dtype=torch.float64), t[:, None] * frequencies)
    return rearrange(torch.view_as_real(turned), "b i two -> b (two i)").float()


def code_half_minus_one(t, dim):
    half = dim // 2
    angles = t[:, None] * torch.exp(torch.arange(half) * -(math.log(10000) / max(half - 1, 1)))
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def code_python(t, dim):
    angles = [[s / 10000 ** (i / (dim // 2)) for i in range(dim // 2)] for s in t.tolist()]
    return torch.tensor([[math.cos(a) for a in row] + [math.sin(a) for a in row] for row in angles])


def code_shifted_cosine(t, dim):
    angles = t.unsqueeze(1).double() * torch.pow(10000, -torch.arange(0, dim, 2).double() / dim)
    return torch.hstack([angles, angles - math.pi / 2]).cos().to(torch.float32)


def attend_einsum(q, k, v):
    weights = torch.einsum("bhid,bhjd->bhij", q, k).div(q.shape[-1] ** 0.5).softmax(dim=-1)
    return torch.einsum("bhij,bhjd->bhid", weights, v)


def attend_loops(q, k, v):
    out = torch.empty_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                weights = torch.exp(k[b, h] @ q[b, h, i] / math.sqrt(q.shape[3]))
                out[b, h, i] = weights @ v[b, h] / weights.sum()
    return out


def attend_torch(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def attend_folded(q, k, v):
    b, h = q.shape[:2]
    q, k, v = (rearrange(x.double(), "b h n d -> (b h) n d") for x in (q, k, v))
    scores = torch.bmm(q, k.permute(0, 2, 1)) * q.shape[-1] ** -0.5
    scores = (scores - scores.amax(-1, keepdim=True)).exp()
    out = torch.bmm(scores / scores.sum(-1, keepdim=True), v)
    return rearrange(out, "(b h) n d -> b h n d", b=b).float()


def attend_numpy(q, k, v):
    q, k, v = q.numpy(), k.numpy(), v.numpy()
    e = np.exp(q @ np.swapaxes(k, 2, 3) / np.sqrt(q.shape[3]))
    return torch.from_numpy((e / e.sum(axis=3, keepdims=True) @ v).astype(np.float32))


def attend_columns(q, k, v):
    scores = (q[:, :, :, None] * k[:, :, None]).sum(-1) / q.shape[-1] ** 0.5
    return (v[:, :, None] * scores.softmax(-1)[..., None]).sum(3)


def depth_unshuffle(x, p):
    return F.pixel_unshuffle(x, p)


def depth_permute(x, p):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // p, p, w // p, p).permute(0, 1, 3, 5, 2, 4).reshape(b, c * p * p, h // p, w // p)


def depth_slices(x, p):
    slices = torch.stack([x[:, :, i::p, j::p] for i in range(p) for j in range(p)], dim=2)
    return slices.flatten(1, 2)


def depth_unfold(x, p):
    return F.unfold(x, p, stride=p).reshape(len(x), -1, x.shape[2] // p, x.shape[3] // p)


def depth_convolution(x, p):
    kernel = torch.eye(p * p).reshape(p * p, 1, p, p).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(x, kernel, stride=p, groups=x.shape[1])


def depth_loops(x, p):
    out = torch.empty(len(x), x.shape[1] * p * p, x.shape[2] // p, x.shape[3] // p)
    for c in range(x.shape[1]):
        for i in range(p):
            for j in range(p):
                out[:, (c * p + i) * p + j] = x[:, c, i::p, j::p]
    return out


def paint_torch(x, kernel, stride):
    return F.conv_transpose2d(x[None, None], kernel[None, None], stride=stride).squeeze(0).squeeze(0)


def paint_zeros(x, kernel, stride):
    k = kernel.shape[0]
    room = torch.zeros((x.shape[0] - 1) * stride + 1, (x.shape[1] - 1) * stride + 1)
    room[::stride, ::stride] = x
    return F.conv2d(F.pad(room, [k - 1] * 4)[None, None], kernel.flip(0, 1)[None, None])[0, 0]


def paint_by_kernel(x, kernel, stride):
    (h, w), k = x.shape, len(kernel)
    out = torch.zeros((h - 1) * stride + k, (w - 1) * stride + k, dtype=torch.float64)
    for a in range(k):
        for b in range(k):
            out[a : a + h * stride : stride, b : b + w * stride : stride][:h, :w] += (x * kernel[a, b]).double()
    return out.float()


def paint_fold(x, kernel, stride):
    (h, w), k = x.shape, len(kernel)
    columns = kernel.reshape(-1, 1) * x.reshape(1, -1)
    return F.fold(columns[None], ((h - 1) * stride + k, (w - 1) * stride + k), k, stride=stride)[0, 0]


def paint_adjoint(x, kernel, stride):
    (h, w), k = x.shape, len(kernel)
    with torch.enable_grad():
        y = torch.zeros(1, 1, (h - 1) * stride + k, (w - 1) * stride + k, requires_grad=True)
        (gradient,) = torch.autograd.grad(F.conv2d(y, kernel[None, None], stride=stride)[0, 0], y, x)
    return gradient[0, 0]


def paint_numpy(x, kernel, stride):
    x, kernel = x.numpy(), kernel.numpy()
    k, out = len(kernel), {}
    for (i, j), value in np.ndenumerate(x):
        for (a, b), weight in np.ndenumerate(kernel):
            place = (i * stride + a, j * stride + b)
            out[place] = out.get(place, 0.0) + float(value) * float(weight)
    full = np.zeros(((x.shape[0] - 1) * stride + k, (x.shape[1] - 1) * stride + k), dtype=np.float32)
    for place, value in out.items():
        full[place] = value
    return torch.from_numpy(full)


def count_stack(widths, blocks):
    widths, skips = list(widths), []
    skips.append(widths[0])
    for level in range(len(widths)):
        skips.extend([widths[level]] * (blocks + (level != len(widths) - 1)))
    below, inputs = widths[-1], []
    while widths:
        w = widths.pop()
        for _ in range(blocks + 1):
            inputs += [below + skips.pop()]
            below = w
    return inputs


def count_formula(widths, blocks):
    n, inputs = len(widths), ()
    for i in reversed(range(n)):
        below, above = widths[min(i + 1, n - 1)], widths[max(i - 1, 0)]
        first = [below] + [widths[i]] * blocks
        skip = [widths[i]] * blocks + [above]
        inputs += tuple(a + b for a, b in zip(first, skip, strict=True))
    return inputs


def count_numpy(widths, blocks):
    w = np.array(widths)
    skips = np.concatenate([w[:1], np.repeat(w, [blocks + 1] * (len(w) - 1) + [blocks])])[::-1]
    outputs = np.repeat(w[::-1], blocks + 1)
    return skips + np.concatenate([w[-1:], outputs[:-1]])


def count_package(widths, blocks):
    from ddpm_course.blocks import ResidualBlock
    from ddpm_course.unet import UNet

    net = UNet(widths=widths, blocks=blocks, heads=1)
    return [layer.conv1.in_channels for layer in net.up if isinstance(layer, ResidualBlock)]


def count_recursive(widths, blocks):
    def level(i, below):
        above = widths[max(i - 1, 0)]
        mine = [(below if j == 0 else widths[i]) + (widths[i] if j < blocks else above) for j in range(blocks + 1)]
        return mine + (level(i - 1, widths[i]) if i else [])

    return torch.tensor(level(len(widths) - 1, widths[-1]))


def block_steps(block, x, embedding):
    h = block.norm1(x)
    h = h * torch.sigmoid(h)
    h = block.conv1(h)
    code = block.scale_shift(embedding)
    c = h.shape[1]
    h = block.norm2(h)
    h = h + h * code[:, :c].reshape(-1, c, 1, 1) + code[:, c:].reshape(-1, c, 1, 1)
    h = block.dropout(F.silu(h))
    return block.conv2(h) + block.skip(x)


def block_einops(block, x, embedding):
    a, b = rearrange(block.scale_shift(embedding), "b (two c) -> two b c 1 1", two=2)
    first = nn.Sequential(block.norm1, nn.SiLU(), block.conv1, block.norm2)
    second = nn.Sequential(nn.SiLU(), block.dropout, block.conv2)
    return torch.add(block.skip(x), second(torch.addcmul(b, first(x), 1 + a)))


def block_functional(block, x, embedding):
    h = F.group_norm(x, 8, block.norm1.weight, block.norm1.bias)
    h = F.conv2d(F.silu(h), block.conv1.weight, block.conv1.bias, padding=1)
    scale, shift = (embedding @ block.scale_shift.weight.T + block.scale_shift.bias).tensor_split(2, dim=1)
    h = F.group_norm(h, 8, block.norm2.weight, block.norm2.bias)
    h = F.silu(torch.einsum("bchw,bc->bchw", h, scale + 1) + shift[..., None, None])
    h = F.conv2d(F.dropout(h, block.dropout.p, block.training), block.conv2.weight, block.conv2.bias, padding="same")
    return h + (x if isinstance(block.skip, nn.Identity) else block.skip(x))


class Steps:
    def __call__(self, block, x, embedding):
        codes = block.scale_shift(embedding).unflatten(1, (2, -1))[..., None, None]
        h = block.norm2(block.conv1(F.silu(block.norm1(x))))
        return block.skip(x) + block.conv2(block.dropout(F.silu((codes[:, 0] + 1) * h + codes[:, 1])))


def block_one_line(block, x, embedding):
    s = block.scale_shift(embedding).unsqueeze(-1).unsqueeze(-1)
    half = s.size(1) // 2
    return block.skip(x) + block.conv2(
        block.dropout(F.silu(block.norm2(block.conv1(F.silu(block.norm1(x)))) * (s[:, :half] + 1) + s[:, half:]))
    )


def net_with_index(net, x, t, y=None):
    code = net.time(lesson04.sinusoidal_embedding(t, net.stem.out_channels * 4))
    if net.num_classes is not None:
        labels = y if y is not None else torch.full((len(x),), net.num_classes)
        code = code + net.label.weight[labels]
    code = code * torch.sigmoid(code)
    kept = [net.stem(F.pixel_unshuffle(x, net.patch))]
    for layer in net.down:
        kept += [layer(kept[-1], code) if hasattr(layer, "conv1") else layer(kept[-1])]
    h = net.middle2(net.attention(net.middle1(kept[-1], code)), code)
    i = len(kept)
    for layer in net.up:
        if hasattr(layer, "conv1"):
            i -= 1
            h = layer(torch.cat((h, kept[i]), 1), code)
        else:
            h = layer(h)
    return F.pixel_shuffle(net.out(F.silu(net.norm(h))), net.patch)


def net_as_written(net, x, t, y=None):
    return typed.typed("unet_forward", NET, **LESSON)(net, x, t, y)


def net_recursive(net, x, t, y=None):
    b, c, height, width = x.shape
    p = net.patch
    code = lesson04.sinusoidal_embedding(t, net.time[2].out_features)
    for layer in net.time:
        code = layer(code)
    if net.label:
        code = code + (net.label(y) if y is not None else net.label.weight[-1])
    code = F.silu(code)
    up = list(net.up)

    def go(layers, h):
        """Down through the layers, then up through as many blocks as read what was kept here."""
        if layers:
            inner = go(layers[1:], layers[0](h) if isinstance(layers[0], nn.Conv2d) else layers[0](h, code))
        else:
            inner = net.middle2(net.attention(net.middle1(h, code)), code)
        if isinstance(up[0], nn.Sequential):
            inner = up.pop(0)(inner)
        return up.pop(0)(torch.cat([inner, h], dim=1), code)

    h = x.reshape(b, c, height // p, p, width // p, p).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    h = go(list(net.down), net.stem(h))
    h = net.out(F.silu(net.norm(h)))
    return h.reshape(b, c, p, p, height // p, width // p).permute(0, 1, 4, 2, 5, 3).reshape(x.shape)


def net_one_image_at_a_time(net, x, t, y=None):
    out = []
    for i in range(len(x)):
        out.append(net_with_index(net, x[i : i + 1], t[i : i + 1], None if y is None else y[i : i + 1]))
    return torch.cat(out)


def net_by_channels(net, x, t, y=None):
    code = net.time(lesson04.sinusoidal_embedding(t, net.time[0].weight.shape[1]))
    if net.label is not None:
        y = torch.tensor([net.num_classes] * len(t)) if y is None else y
        code = code.add(net.label(y))
    code, skips = F.silu(code), []
    h = net.stem(rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=net.patch, q=net.patch))
    for layer in [None, *net.down]:
        if layer is not None:
            h = layer(h, code) if not isinstance(layer, nn.Conv2d) else layer(h)
        skips = [h, *skips]
    for layer in (net.middle1, net.attention, net.middle2):
        h = layer(h) if layer is net.attention else layer(h, code)
    for layer in net.up:
        try:
            wanted = layer.norm1.num_channels
        except AttributeError:
            h = layer(h)
            continue
        skip, *skips = skips
        joined = torch.empty(len(h), wanted, *h.shape[2:])
        joined[:, : h.shape[1]], joined[:, h.shape[1] :] = h, skip
        h = layer(joined, code)
    return F.pixel_shuffle(net.out(nn.SiLU()(net.norm(h))), net.patch)


RIGHT = {
    "sinusoidal_embedding": [code_interleaved, code_numpy, code_polar, code_half_minus_one, code_python, code_shifted_cosine],
    "attention": [attend_einsum, attend_loops, attend_torch, attend_folded, attend_numpy, attend_columns],
    "space_to_depth": [depth_unshuffle, depth_permute, depth_slices, depth_unfold, depth_convolution, depth_loops],
    "transposed_convolution": [paint_torch, paint_zeros, paint_by_kernel, paint_fold, paint_adjoint, paint_numpy],
    "skip_channels": [count_stack, count_formula, count_numpy, count_package, count_recursive],
    "residual_forward": [block_steps, block_einops, block_functional, Steps, block_one_line],
    "unet_forward": [net_with_index, net_as_written, net_recursive, net_one_image_at_a_time, net_by_channels],
}  # fmt: skip


@pytest.mark.parametrize(
    "name, answer", [(n, f) for n, answers in RIGHT.items() for f in answers], ids=lambda v: getattr(v, "__name__", v)
)
def test_right_answers_of_any_structure_pass(name, answer):
    exercise = getattr(checks, name)
    verdict = exercise.check(answer() if isinstance(answer, type) else answer)
    assert verdict.solved and verdict.passed == len(exercise.cases), verdict


@pytest.mark.parametrize("answer", [code_interleaved, code_half_minus_one])
def test_another_order_of_the_code_is_right_and_what_it_means_is_said(answer):
    verdict = checks.sinusoidal_embedding.check(answer)
    assert verdict.solved and "cosines first" in " ".join(verdict.text)
    assert "cosines first" not in " ".join(checks.sinusoidal_embedding.check(code_numpy).text)


@pytest.mark.parametrize("answer", [code_interleaved, code_half_minus_one])
def test_a_forward_pass_with_the_students_own_code_of_another_order_is_right(answer):
    """Exercise 4.1 accepted it; 4.7 calls it. With a mistake beside it, the mistake is not waved through."""
    verdict = judge("unet_forward", NET, sinusoidal_embedding=answer)
    assert verdict.solved and "cosines first" in " ".join(verdict.text), verdict
    without_attention = change(NET, ("h = net.attention(h)\n", ""))
    assert judge("unet_forward", without_attention, sinusoidal_embedding=answer).status == "wrong"


def test_the_blocks_own_dropout_is_no_reproach():
    """Two cases have it on, and there the right answer draws as well."""
    verdict = judge(
        "residual_forward", change(BLOCK, ("(1 + scale)", "scale")).replace("norm2(h) * scale", "norm2(h) + scale")
    )
    assert verdict.status == "wrong" and "random" not in " ".join(verdict.text), verdict


def test_networks_among_the_arguments_are_copies():
    """A student's function may not change the weights or the mode of a network, and never reaches the course's own."""
    (net, *_), *_ = (case.args for case in checks.unet_forward.cases)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def meddling(net, x, t, y=None):
        out = lesson04.unet_forward(net, x, t, y)
        with torch.no_grad():
            net.stem.weight.zero_()
        return out

    verdict = checks.unet_forward.check(meddling)
    assert (verdict.status, verdict.problem) == ("wrong", "changed") and "`net`" in " ".join(verdict.text)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())

    def training(net, x, t, y=None):
        return lesson04.unet_forward(net.train(), x, t, y)

    assert checks.unet_forward.check(training).problem == "changed"


def test_the_file_holds_a_network_that_loads_the_bundled_weights(tmp_path):
    """unet_forward alone is the student's here; the rest comes along as given, and replaces nothing that is theirs."""
    text = library.add(library.HEADER, library.BY_NAME["unet_forward"], lesson04.unet_forward)
    assert "import ddpm_course" not in text and "from ddpm_course" not in text
    namespace = library.execute(text)
    trained, _, about = load_pretrained("cpu")
    mine = namespace["MyUNet"](**about["network"]).eval()
    mine.load_state_dict(trained.state_dict())
    x, t, y = torch.randn(3, 1, 28, 28), torch.tensor([1, 500, 1000]), torch.tensor([0, 5, 10])
    with torch.no_grad():
        assert (mine(x, t, y) - trained(x, t, y)).abs().max() < 1e-4
        assert (mine(x, t) - trained(x, t)).abs().max() < 1e-4
    given = library.given_names(text)
    assert {"MyUNet", "attention", "residual_forward", "skip_channels", "sinusoidal_embedding"} <= given
    assert "unet_forward" not in given
    text = library.add(text, library.BY_NAME["residual_forward"], lesson04.residual_forward)
    assert "residual_forward" not in library.given_names(text)
    assert library.execute(text)["residual_forward"] is not None


def test_a_lambda_is_not_saved_but_passes():
    with pytest.raises(CannotSave):
        library.add(
            library.HEADER, library.BY_NAME["attention"], lambda q, k, v: F.scaled_dot_product_attention(q, k, v)
        )
