"""What lesson 04 claims, against independent truths: what is seen, what codes tell apart, what is kept, what learns."""

import ast
import inspect
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddpm_course import blocks
from ddpm_course.blocks import linear_attention
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.exercises import lesson04
from ddpm_course.plots.lesson04 import kept_megabytes
from ddpm_course.schedules import Schedule, linear_schedule
from ddpm_course.training import train
from ddpm_course.unet import UNet, sinusoidal_embedding


@pytest.mark.parametrize(
    "cell, name",
    [
        ("block-class", "Block"),
        ("attention-class", "SelfAttention"),
        ("unet-down", "down_path"),
        ("unet-up", "up_path"),
        ("unet-class", "MyUNet"),
    ],
)
def test_what_the_lesson_gives_is_what_my_ddpm_is_given(lesson, cell, name):
    """Otherwise a student's file would hold another network than the lesson."""
    theirs = inspect.getsource(getattr(lesson04, name))
    assert ast.unparse(ast.parse(lesson.source(cell))) == ast.unparse(ast.parse(theirs))


@torch.no_grad()
def shaken(make, **choices) -> nn.Module:
    """A network none of whose weights is 0, as some are before training; the same each time."""
    torch.manual_seed(0)
    net = make(**choices)
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


@torch.no_grad()
def test_six_convolutions_see_169_pixels_and_the_unet_sees_all():
    """By changing one input pixel at a time and watching the middle output, in place of gradients."""

    def six_convolutions():
        layers = [(nn.Conv2d(8 if i else 1, 8, 3, padding=1), nn.SiLU()) for i in range(6)]
        return nn.Sequential(*itertools.chain(*layers))

    stack = shaken(six_convolutions)
    net = shaken(UNet, widths=(8, 16), heads=2)
    x, parts = torch.randn(1, 1, 28, 28), 10 * torch.eye(784).reshape(784, 1, 28, 28)
    for call, seen in ((stack, 169), (lambda x: net(x, torch.full((len(x),), 500)), 784)):
        plain = call(x)[:, :, 14, 14]
        changed = torch.cat([call(x + some)[:, :, 14, 14] for some in parts.split(196)])
        assert int(((changed - plain).abs().amax(1) > 1e-6).sum()) == seen


def test_the_wrong_axis_keeps_rows_distinct_but_crowds_the_odd_ones(lesson):
    right = sinusoidal_embedding(torch.arange(1000), 128)
    wrong = lesson.run("axis", codes=right)["wrong_axis"](1000, 128)
    assert torch.pdist(wrong[100:]).min() > 1e-3
    odd, even = wrong[101::2], wrong[100::2]
    assert odd.min() > 0.54 and odd.max() <= 1  # cos of something in [-1, 1]
    neighbours = (wrong[101:] - wrong[100:-1]).norm(dim=1)
    among_odd = torch.pdist(odd)
    assert among_odd.quantile(0.99) < neighbours.min()  # any two odd steps are nearer than neighbours
    assert (right[101:] - right[100:-1]).norm(dim=1).max() < 2
    assert torch.pdist(even).mean() > 3 * among_odd.mean()


def test_products_of_codes_depend_on_the_distance_alone():
    """The sum of cosines, in Python's floats, for some pairs."""
    codes = sinusoidal_embedding(torch.arange(1001), 128)
    for a, b in itertools.product((3, 250, 999), (3, 77, 640)):
        exact = sum(math.cos((a - b) * 10_000 ** (-i / 64)) for i in range(64))
        assert abs((codes[a] @ codes[b]).item() - exact) < 0.02


def test_what_is_kept_for_the_backward_pass_grows_as_the_lesson_says():
    """Twice the side: 16 times the table by hand, 4 times everything in PyTorch's and in linear attention."""

    def megabytes(f, side):
        return kept_megabytes(f, *(torch.randn(1, 4, side**2, 16) for _ in range(3)))

    by_hand = megabytes(lesson04.attention, 32) / megabytes(lesson04.attention, 16)
    assert 14 < by_hand <= 16
    for f in (F.scaled_dot_product_attention, linear_attention):
        assert 3.8 < megabytes(f, 32) / megabytes(f, 16) < 4.2
    table = 4 * 1024**2 * 4 / 1e6  # heads x positions² x bytes of a float32
    assert megabytes(lesson04.attention, 32) > table


def test_linear_attention_has_the_rank_of_a_head():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 49, 16, dtype=torch.float64)
    shares = linear_attention(q, k, torch.eye(49, dtype=torch.float64)[None, None])[0, 0]
    assert (shares.sum(1) - 1).abs().max() < 1e-12
    assert int(torch.linalg.matrix_rank(shares)) == 16
    assert int(torch.linalg.matrix_rank((q @ k.mT / 4).softmax(3)[0, 0])) == 49


def test_only_repeating_and_convolving_keeps_a_flat_input_flat():
    torch.manual_seed(0)
    flat = torch.ones(1, 16, 9, 9)

    def spread(layer):
        return layer(flat)[:, :, 4:-4, 4:-4].std(dim=(2, 3)).max().item()

    assert spread(nn.ConvTranspose2d(16, 3, 3, 2, 1, output_padding=1)) > 0.05
    assert spread(nn.ConvTranspose2d(16, 3, 4, 2, 1)) > 0.05
    assert spread(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(16, 3, 3, padding=1))) < 1e-5


def test_a_small_network_learns_one_batch_by_heart():
    """From 1, the noise's variance, to less than 0.15 in 120 steps."""
    schedule, generator = linear_schedule(1000), torch.Generator().manual_seed(0)
    x0 = torch.rand(6, 1, 12, 12, generator=generator) * 2 - 1
    noise, t = torch.randn(x0.shape, generator=generator), torch.tensor([10, 50, 100, 300, 600, 1000])
    xt = q_sample(schedule, x0, t, noise)
    torch.manual_seed(0)
    net = lesson04.MyUNet(widths=(16, 32))
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    losses = []
    for _ in range(120):
        loss = F.mse_loss(net(xt, t), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert 0.8 < losses[0] < 1.2 and losses[-1] < 0.15


@torch.no_grad()
def test_without_time_every_t_is_500(lesson):
    classes = (lesson.run("ablation-parts")["WithoutTime"], UNet)
    net, whole = (shaken(each, widths=(16, 32)) for each in classes)
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 900])
    assert torch.equal(net(x, t), net(x, t.flip(0))) and not torch.equal(whole(x, t), whole(x, t.flip(0)))
    assert (net(x, t) - whole(x, torch.full((2,), 500))).abs().max() < 1e-5


@torch.no_grad()
def test_without_skips_the_way_up_reads_zeros_there_and_only_there(lesson):
    classes = (lesson.run("ablation-parts")["WithoutSkips"], UNet)
    net, whole = (shaken(each, widths=(16, 32)) for each in classes)
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 900])
    assert (net(x, t) - whole(x, t)).abs().max() > 0.01
    assert (net(x, t) - net(x, t.flip(0))).abs().max() > 0.01  # t still reaches it
    way_up = [layer for layer in whole.up if isinstance(layer, blocks.ResidualBlock)]
    assert len(way_up) == 4
    for layer, before in zip(way_up, [whole.middle2, *way_up], strict=False):

        def erase(layer, args, below=before.conv2.out_channels):  # what comes from below stands before the skip
            args[0][:, below:] = 0

        layer.register_forward_pre_hook(erase)
    assert (net(x, t) - whole(x, t)).abs().max() < 1e-5


def test_somebody_elses_network_trains_in_the_courses_loop_and_counts_from_0(lesson):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    inner = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    given = []
    inner.register_forward_pre_hook(lambda _, args: given.append(args[1]))
    net = lesson.run("else")["Adapter"](inner)
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    run = train(net, GaussianDiffusion(linear_schedule(1000)), images, steps=6, batch_size=8, lr=1e-3, device="cpu")
    assert run.step == 6 and len(run.losses) == 1
    assert torch.cat(given).min() >= 0 and torch.cat(given).max() <= 999

    given.clear()  # a chain of one step: t = T arrives as T - 1
    one_step = GaussianDiffusion(Schedule(torch.tensor([0.5])))
    train(net, one_step, images, steps=1, batch_size=8, device="cpu")
    assert given[0].tolist() == [0] * 8
