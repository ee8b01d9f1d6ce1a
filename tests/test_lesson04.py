"""What lesson 04 claims, against independent truths: what is seen, what codes tell apart, what is kept, what learns."""

import ast
import inspect
import itertools
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddpm_course import blocks
from ddpm_course.blocks import linear_attention
from ddpm_course.checks import answers04
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.plots.lesson04 import kept_megabytes
from ddpm_course.schedules import linear_schedule
from ddpm_course.training import train
from ddpm_course.unet import UNet, sinusoidal_embedding

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "solutions" / "04_unet.ipynb"


def cell(id: str) -> str:
    (found,) = (c for c in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if c["id"] == id)
    return "".join(found["source"])


@pytest.mark.parametrize(
    "id, name",
    [
        ("block-class", "Block"),
        ("attention-class", "SelfAttention"),
        ("unet-down", "down_path"),
        ("unet-up", "up_path"),
        ("unet-class", "MyUNet"),
    ],
)
def test_what_the_lesson_gives_is_what_my_ddpm_is_given(id, name):
    """Otherwise a student's file would hold another network than the lesson."""
    theirs = inspect.getsource(getattr(answers04, name))
    assert ast.unparse(ast.parse(cell(id))) == ast.unparse(ast.parse(theirs))


def test_six_convolutions_see_169_pixels_and_the_unet_sees_all():
    """By changing one input pixel at a time and watching the middle output, in place of gradients."""
    torch.manual_seed(0)
    stack = nn.Sequential(
        *(layer for i in range(6) for layer in (nn.Conv2d(8 if i else 1, 8, 3, padding=1), nn.SiLU()))
    )
    net = UNet(widths=(8, 16), heads=2).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, parts = torch.randn(1, 1, 28, 28), 10 * torch.eye(784).reshape(784, 1, 28, 28)
    for call, seen in ((stack, 169), (lambda x: net(x, torch.full((len(x),), 500)), 784)):
        with torch.no_grad():
            plain = call(x)[:, :, 14, 14]
            changed = torch.cat([call(x + some)[:, :, 14, 14] for some in parts.split(196)])
        assert int(((changed - plain).abs().amax(1) > 1e-6).sum()) == seen


def wrong_axis(n: int, dim: int) -> torch.Tensor:
    namespace = {"torch": torch}
    exec(cell("axis").split("\n\n\n")[0], namespace)
    return namespace["wrong_axis"](n, dim)


def test_the_wrong_axis_keeps_rows_distinct_but_crowds_the_odd_ones():
    right, wrong = sinusoidal_embedding(torch.arange(1000), 128), wrong_axis(1000, 128)
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
        exact = sum(
            torch.cos(torch.tensor((a - b) * 10_000 ** (-i / 64), dtype=torch.float64)).item() for i in range(64)
        )
        assert abs((codes[a] @ codes[b]).item() - exact) < 0.02


def test_what_is_kept_for_the_backward_pass_grows_as_the_lesson_says():
    """Twice the side: 16 times the table by hand, 4 times everything in PyTorch's and in linear attention."""

    def megabytes(f, side):
        return kept_megabytes(f, *(torch.randn(1, 4, side**2, 16) for _ in range(3)))

    by_hand = megabytes(answers04.attention, 32) / megabytes(answers04.attention, 16)
    assert 14 < by_hand <= 16
    for f in (F.scaled_dot_product_attention, linear_attention):
        assert 3.8 < megabytes(f, 32) / megabytes(f, 16) < 4.2
    table = 4 * 1024**2 * 4 / 1e6  # heads x positions² x bytes of a float32
    assert megabytes(answers04.attention, 32) > table


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
    net = answers04.MyUNet(widths=(16, 32))
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    losses = []
    for _ in range(120):
        loss = F.mse_loss(net(xt, t), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert 0.8 < losses[0] < 1.2 and losses[-1] < 0.15


def ablated(name: str) -> tuple[UNet, UNet]:
    """One of the lesson's networks with a part missing, and the whole one with the same weights, none of them 0."""
    namespace = {"UNet": UNet, "torch": torch, "blocks": blocks}
    exec(cell("ablation-parts"), namespace)
    torch.manual_seed(0)
    net, whole = namespace[name](widths=(16, 32)).eval(), UNet(widths=(16, 32)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    whole.load_state_dict(net.state_dict())
    return net, whole


@torch.no_grad()
def test_without_time_every_t_is_500():
    net, whole = ablated("WithoutTime")
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 900])
    assert torch.equal(net(x, t), net(x, t.flip(0))) and not torch.equal(whole(x, t), whole(x, t.flip(0)))
    assert torch.equal(net(x, t), whole(x, torch.full((2,), 500)))


@torch.no_grad()
def test_without_skips_the_way_up_reads_zeros_there_and_only_there():
    net, whole = ablated("WithoutSkips")
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 900])
    seen, full = [], []
    for mine, theirs in zip(net.up, whole.up, strict=True):
        if isinstance(mine, blocks.ResidualBlock):  # hooks run in order: these see what the erasing one leaves
            mine.register_forward_pre_hook(lambda layer, args: seen.append((args[0], layer.below)))
            theirs.register_forward_pre_hook(lambda layer, args: full.append(args[0]))
    net(x, t), whole(x, t)
    assert len(seen) == len(full) == 4
    assert all(h[:, n:].numel() and bool((h[:, n:] == 0).all()) for h, n in seen)
    (first, n), *_ = seen
    assert torch.equal(first[:, :n], full[0][:, :n]) and bool((full[0][:, n:] != 0).any())
    assert not torch.equal(net(x, t), net(x, t.flip(0)))  # it still hears of t


def test_somebody_elses_network_trains_in_the_courses_loop_and_counts_from_0():
    diffusers = pytest.importorskip("diffusers")
    namespace = {"nn": nn}
    exec(cell("else").split("\n\n\n")[0], namespace)
    torch.manual_seed(0)
    inner = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    given = []
    inner.register_forward_pre_hook(lambda _, args: given.append(args[1]))
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    run = train(namespace["Adapter"](inner), GaussianDiffusion(linear_schedule(1000)), images, steps=6, batch_size=8, lr=1e-3, device="cpu")  # fmt: skip
    assert run.step == 6 and len(run.losses) == 1
    times = torch.cat(given)
    assert int(times.min()) >= 0 and int(times.max()) <= 999
    from ddpm_course.schedules import Schedule  # t = T must arrive as T - 1

    given.clear()
    train(namespace["Adapter"](inner), GaussianDiffusion(Schedule(torch.tensor([0.5]))), images, steps=1, batch_size=8, device="cpu")  # fmt: skip
    assert given[0].tolist() == [0] * 8
