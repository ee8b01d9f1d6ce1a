"""The network: gradients everywhere, distinct codes for t, what labels mean, and every block against its formula."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from core import normal, perturbed, seeded

from ddpm_course.blocks import Attention, ResidualBlock, StandardisedConv2d
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.losses import diffusion_loss
from ddpm_course.samplers import ancestral_steps, ddim_steps
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training import step as training_step
from ddpm_course.training import train
from ddpm_course.unet import CHOICES, UNet, layer_table, sinusoidal_embedding


def inputs(b=4, c=1, size=28, seed=0):
    generator = seeded(seed)
    return torch.randn(b, c, size, size, generator=generator), torch.randint(1, 1001, (b,), generator=generator)


@pytest.fixture(autouse=True)
def the_same_weights_every_time():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "arguments, size",
    [
        (dict(num_classes=10), 28),
        (dict(channels=3, widths=(16, 32, 64), blocks=2, num_classes=4), 32),
        (dict(widths=(16,), patch=1, heads=2), 12),
        (dict(conv="standardised", time="add", downsample="space_to_depth", upsample="transposed"), 28),
        (dict(widths=(16, 32), attention=("linear", "full"), middle="linear", num_classes=3), 28),
        (dict(middle=None, self_condition=True, dropout=0.1, patch=4), 32),
    ],
    ids=str,
)
def test_starts_as_zero_and_gradients_reach_every_parameter(arguments, size):
    """Every row of every one, once weights are perturbed. The null class is among the labels."""
    net, classes = UNet(**arguments), arguments.get("num_classes")
    x, t = inputs(b=(classes or 3) + 1, c=arguments.get("channels", 1), size=size)
    y = torch.arange(classes + 1) if classes else None
    given = (x, t, y, x.flip(0)) if net.self_condition else (x, t, y)
    out = net(*given)
    assert out.shape == x.shape and bool((out == 0).all())
    (out - x).square().sum().backward()
    assert net.out.weight.grad.abs().max() > 0
    net.zero_grad()
    out = perturbed(net)(*given)
    (out * torch.randn(out.shape, generator=seeded(1))).sum().backward()
    for name, parameter in net.named_parameters():
        rows = parameter.grad.abs().flatten(1).amax(1) if parameter.ndim > 1 else parameter.grad.abs()
        assert bool((rows > 0).all()), name


def test_every_t_has_its_own_code():
    """Written out with Python's floats; 2e-4 is float32's spacing of angles near 1000, times three. None lie near."""
    for row, t in zip(sinusoidal_embedding(torch.tensor([1, 17, 1000]), 8).tolist(), (1, 17, 1000), strict=True):
        angles = [t * 10_000 ** (-i / 4) for i in range(4)]
        by_hand = [math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]
        assert max(abs(a - b) for a, b in zip(row, by_hand, strict=True)) < 2e-4
    codes = sinusoidal_embedding(torch.arange(1, 1001), 128)
    assert codes.shape == (1000, 128) and codes.dtype == torch.float32 and torch.pdist(codes).min() > 0.3


@torch.no_grad()
def test_the_output_depends_on_t_on_the_class_and_on_no_other_image_of_the_batch():
    """No labels mean the null class. Each image alone gives what it gives in the batch, in any memory layout, to 1e-4 of
    outputs of size 1. Dropout acts in training only."""
    net = perturbed(UNet(num_classes=10, dropout=0.5)).eval()
    x, t = inputs()
    y, same = torch.tensor([0, 3, 9, 10]), x[:1].expand(4, -1, -1, -1)
    for out in (net(same, torch.tensor([1, 2, 500, 1000]), 0 * y), net(same, 0 * t + 500, y)):
        assert torch.pdist(out.flatten(1)).min() > 1e-2
    assert torch.equal(net(x, t), net(x, t, torch.full((4,), 10)))
    together = net(x, t, y)
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(4)])
    other = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), t, y)
    for out in (alone, other):
        assert (together - out).abs().max() < 1e-4 * together.abs().max()
    net.train()
    assert not torch.equal(net(x, t), net(x, t))


@torch.no_grad()
def test_every_combination_of_choices_runs_and_is_rebuilt_from_its_arguments():
    """Defaults are not stored: code that knows fewer keywords reads such a checkpoint. And only widths with attention
    need divide into heads."""
    x, t = inputs(b=2, size=8)
    names = ("conv", "time", "downsample", "upsample", "middle")
    further = dict(attention=(None, ("linear", "full")), self_condition=(False, True))
    for values in itertools.product(*(CHOICES[name] for name in names), *further.values()):
        net = UNet(1, (8, 16), heads=2, **dict(zip((*names, *further), values, strict=True))).eval()
        again = UNet(**net.arguments).eval()
        again.load_state_dict(perturbed(net).state_dict())
        assert again.arguments == net.arguments
        out = net(x, t)
        assert out.shape == x.shape and bool(out.isfinite().all()) and torch.equal(again(x, t), out)
    basic = dict(channels=3, widths=(24, 40), blocks=2, patch=1, num_classes=5, dropout=0.1, heads=5)
    assert UNet(**basic, attention=(None, None), middle=None).arguments == basic | {"middle": None}


def test_attention_of_a_level_is_of_its_kind_and_applied_on_both_ways():
    """Twice down, three times up. The skip of such a level is the attention's output: the way up is given that."""
    net = perturbed(UNet(1, (16, 32, 48), blocks=2, attention=(None, "linear", None), middle="full")).eval()
    rows = [row for row in layer_table(net, *inputs(size=32)) if row.layer == "Attention"]
    assert [row.output for row in rows if row.name != "attention"] == [(4, 32, 8, 8)] * 5
    kinds = {name: layer.kind for name, layer in net.named_modules() if isinstance(layer, Attention)}
    assert kinds.pop("attention") == "full" and set(kinds.values()) == {"linear"}
    net = perturbed(UNet(1, (16,), attention=("full",), middle=None, patch=1)).eval()
    seen = []
    net.up[0].register_forward_hook(lambda layer, args, out: seen.append(args[0][:, 16:]))
    net.down[1].register_forward_hook(lambda layer, args, out: seen.append(out))
    net(*inputs(size=8))
    assert torch.equal(*seen)


@pytest.mark.parametrize("conv", [torch.nn.Conv2d, StandardisedConv2d])
def test_blocks_and_attention_start_as_their_skips(conv):
    x, emb, block = torch.randn(2, 8, 6, 6), torch.randn(2, 12), ResidualBlock(8, 16, 12, conv=conv)
    assert torch.equal(block(x, emb), block.skip(x)) and torch.equal(Attention(8, 2)(x), x)
    block(x, emb).square().sum().backward()
    start = block.conv2.gain if conv is StandardisedConv2d else block.conv2.weight
    assert bool((start.grad != 0).all())  # and leave it with the first step


@torch.no_grad()
@pytest.mark.parametrize("kind", ["full", "linear"])
def test_attention_is_an_average_over_positions_for_one_head_at_a_time(kind):
    """By loops, to 1e-5: softmax over keys, or the product of two softmaxes, over features and over positions."""
    layer, x = perturbed(Attention(16, heads=2, kind=kind)), torch.randn(2, 16, 3, 4)
    normed = F.group_norm(x, 8, layer.norm.weight, layer.norm.bias)
    for b, out in enumerate(layer(x)):
        qkv = normed[b].reshape(16, 12).T @ layer.qkv.weight[:, :, 0, 0].T  # (positions, 3 * channels)
        heads = []
        for h in range(2):
            q, k, v = (qkv[:, 16 * part + 8 * h : 16 * part + 8 * h + 8] for part in range(3))
            weights = (q @ k.T / math.sqrt(8)).softmax(1) if kind == "full" else q.softmax(1) @ k.softmax(0).T
            assert (weights.sum(1) - 1).abs().max() < 1e-6
            heads.append(weights @ v)
        mixed = torch.cat(heads, 1) @ layer.out.weight[:, :, 0, 0].T
        assert (out - x[b] - mixed.T.reshape(16, 3, 4)).abs().max() < 1e-5


@torch.no_grad()
def test_standardised_kernels_have_mean_0_and_variance_1_over_the_fan_in():
    """Read back one input pixel at a time; then times the gains 1…5. To 1e-3, for the small number under the root."""
    layer, gains = StandardisedConv2d(6, 5, 3, padding=1), torch.arange(1.0, 6)
    layer.weight.mul_(3).add_(0.7)
    layer.gain.copy_(gains.reshape(5, 1, 1, 1))
    kernels = (layer(torch.eye(54).reshape(54, 6, 3, 3))[:, :, 1, 1] - layer.bias).T  # (5, 54)
    centred = layer.weight.flatten(1) - layer.weight.flatten(1).mean(1, keepdim=True)
    assert (kernels - gains[:, None] * F.normalize(centred)).abs().max() < 1e-3


@torch.no_grad()
def test_time_added_is_time_shifting_the_first_convolution():
    """ "add": a constant code added to every position before the second normalisation, so its bias can be taken over."""
    block = perturbed(ResidualBlock(8, 16, 12, time="add"))
    x, emb = torch.randn(3, 8, 6, 6), torch.randn(3, 12)
    for i in range(3):
        other = copy.deepcopy(block)
        other.conv1.bias += other.add(emb[i])
        for parameter in other.add.parameters():
            parameter.zero_()
        assert (block(x, emb)[i] - other(x, emb)[i]).abs().max() < 1e-5


def test_layer_table_accounts_for_every_parameter_and_leaves_nothing_behind():
    net = UNet(num_classes=4, widths=(16, 32, 48), blocks=2, middle=None, upsample="transposed")
    rows = layer_table(net, *inputs(size=32))
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in net.parameters())
    assert rows[-1].output[2:] == (16, 16) and len({row.name for row in rows}) == len(rows)
    assert all(layer.training and not layer._forward_hooks for layer in net.modules())
    channels = {row.name: row.input[1] for row in rows if row.layer == "ResidualBlock"}
    assert channels == {name: net.get_submodule(name).norm1.num_channels for name in channels}


class Recorder(torch.nn.Module):
    """Remembers what it is given as x_self; its output depends on it, so that a gradient could leak."""

    self_condition = True

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.tensor(0.5)), []

    def forward(self, x, t, y=None, x_self=None):
        self.seen.append((len(x), x_self, torch.is_grad_enabled()))
        return self.weight * x + (0 if x_self is None else 0.25 * x_self)


def test_training_gives_half_of_the_items_their_first_estimate_and_no_gradient_through_it():
    diffusion, net = GaussianDiffusion(cosine_schedule(), "v"), Recorder()
    (x0, t), noise = inputs(b=5, size=4), normal(5, 1, 4, 4, seed=1, dtype=torch.float32)
    loss = diffusion_loss(net, diffusion, x0, t=t, noise=noise)
    (n1, none, grad1), (n2, x_self, grad2) = net.seen
    assert (n1, none, grad1, n2, grad2) == (2, None, False, 5, True)
    xt = q_sample(diffusion.schedule, x0, t, noise)
    first = diffusion.decode(0.5 * xt, xt, t)[0]
    assert bool((x_self[::2] == 0).all()) and (x_self[1::2] - first[1::2]).abs().max() < 1e-6
    assert not x_self.requires_grad
    expected = (0.5 * xt + 0.25 * x_self - diffusion.target(x0, noise, t)).square().flatten(1).mean(1)
    assert (loss - expected).abs().max() < 1e-6


@pytest.mark.parametrize("sampler", [ancestral_steps, ddim_steps])
def test_sampling_gives_the_estimate_of_the_step_before(sampler):
    net = Recorder()
    estimates = [step.x0 for step in sampler(net, GaussianDiffusion(cosine_schedule(), "v"), (2, 1, 4, 4), 5)]
    first, *given = (x_self for _, x_self, _ in net.seen)
    assert first is None and torch.equal(torch.stack(given), torch.stack(estimates[:-1]))


@torch.no_grad()
def test_the_network_reads_an_estimate_within_the_range_of_images_and_none_as_zeros():
    net, (x, t) = perturbed(UNet(self_condition=True)), inputs()
    far = net(x, t, None, 50 * x)
    assert torch.equal(far, net(x, t, None, (50 * x).clamp(-1, 1))) and not torch.equal(far, net(x, t))
    assert torch.equal(net(x, t), net(x, t, None, torch.zeros_like(x)))


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
def test_every_weight_learns_with_self_conditioning(precision, monkeypatch):
    """The first estimate is made without gradients, in the same autocast's reach: a cached cast of a weight would have
    none either, and the weight would stand still."""
    monkeypatch.setattr(training_step, "mixed_precision", lambda device: precision)
    net, given = perturbed(UNet(widths=(8, 16), heads=2, self_condition=True)), []
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    net.register_forward_pre_hook(lambda layer, args, kwargs: given.append(kwargs.get("x_self")), with_kwargs=True)
    train(net, GaussianDiffusion(cosine_schedule(), "v"), images, steps=2, batch_size=8, device="cpu")
    assert [x_self is None for x_self in given] == [True, False] * 2 and bool((given[1][1::2] != 0).any())
    assert [name for name, p in net.named_parameters() if torch.equal(p, start[name])] == []
