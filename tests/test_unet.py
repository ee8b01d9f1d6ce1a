"""The network: gradients everywhere, distinct codes for t, what labels mean, and errors a student understands."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from ddpm_course import training_step
from ddpm_course.blocks import (
    Attention,
    ResidualBlock,
    StandardisedConv2d,
    downsampling,
    linear_attention,
    upsampling,
)
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.losses import diffusion_loss
from ddpm_course.samplers import ancestral_steps, ddim_steps, guided
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training import train
from ddpm_course.unet import CHOICES, UNet, layer_table, sinusoidal_embedding


def perturbed(net, seed=0):
    """Second convolutions, attention's and the network's output start at 0 and would hide what comes before them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return net


def inputs(b=4, c=1, size=28, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, c, size, size, generator=generator), torch.randint(1, 1001, (b,), generator=generator)


@pytest.mark.parametrize(
    "arguments, size",
    [
        (dict(), 28),
        (dict(num_classes=10), 28),
        (dict(channels=3, widths=(16, 32, 64), blocks=2, num_classes=4), 32),
        (dict(widths=(16,), patch=1, heads=2), 12),
        (dict(conv="standardised", time="add", downsample="space_to_depth", upsample="transposed"), 28),
        (dict(widths=(16, 32), attention=("linear", "full"), middle="linear", num_classes=3), 28),
        (dict(middle=None, self_condition=True, dropout=0.1, patch=4), 32),
    ],
    ids=str,
)
def test_gradients_reach_every_parameter(arguments, size):
    """All weights are perturbed first. The null class is among the labels: its row must learn, too."""
    torch.manual_seed(0)
    net = perturbed(UNet(**arguments))
    classes = arguments.get("num_classes")
    x, t = inputs(b=(classes or 3) + 1, c=arguments.get("channels", 1), size=size)
    y = torch.arange(classes + 1) if classes else None
    out = net(x, t, y, x.flip(0)) if net.self_condition else net(x, t, y)
    assert out.shape == x.shape
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for name, parameter in net.named_parameters():
        rows = parameter.grad.abs().flatten(1).amax(1) if parameter.ndim > 1 else parameter.grad.abs()
        assert bool((rows > 0).all()), f"no gradient reaches a row of {name}"


@pytest.mark.parametrize("arguments", [dict(), dict(conv="standardised"), dict(time="add")], ids=str)
def test_starts_as_zero_and_learns_from_the_first_step(arguments):
    torch.manual_seed(0)
    net = UNet(**arguments)
    x, t = inputs()
    out = net(x, t)
    assert bool((out == 0).all())
    (out - x).square().mean().backward()
    assert net.out.weight.grad.abs().max() > 0


def test_every_t_has_its_own_code():
    """For all t in 1…1000: the nearest two of 128 features lie 0.3 apart or more; neighbours are the nearest."""
    codes = sinusoidal_embedding(torch.arange(1, 1001), 128)
    assert codes.shape == (1000, 128) and codes.dtype == torch.float32
    distance = torch.cdist(codes, codes, compute_mode="donot_use_mm_for_euclid_dist")
    distance.fill_diagonal_(math.inf)
    assert distance.min() > 0.3
    assert int((distance.argmin(1) - torch.arange(1000)).abs().max()) == 1


def test_codes_are_sines_and_cosines_over_the_feature_axis():
    """Written out with Python's floats; 2e-4 is float32's spacing of angles near 1000, times three."""
    codes = sinusoidal_embedding(torch.tensor([1, 17, 1000]), 8)
    for row, t in zip(codes.tolist(), (1, 17, 1000), strict=True):
        for i in range(4):
            angle = t * 10_000 ** (-i / 4)
            assert abs(row[i] - math.cos(angle)) < 2e-4 and abs(row[4 + i] - math.sin(angle)) < 2e-4
    with pytest.raises(ValueError, match="dim must be even"):
        sinusoidal_embedding(torch.tensor([1]), 7)


def test_the_output_depends_on_t_and_on_the_class():
    net = perturbed(UNet(num_classes=3)).eval()
    x = inputs(b=1)[0].expand(4, -1, -1, -1)
    with torch.no_grad():
        over_t = net(x, torch.tensor([1, 2, 500, 1000]), torch.zeros(4, dtype=torch.int64))
        over_y = net(x, torch.full((4,), 500), torch.arange(4))
    for out in (over_t, over_y):
        apart = torch.pdist(out.flatten(1))
        assert apart.min() > 1e-2


def test_no_labels_means_the_null_class():
    net = perturbed(UNet(num_classes=10)).eval()
    x, t = inputs()
    with torch.no_grad():
        assert torch.equal(net(x, t), net(x, t, torch.full((4,), 10)))


def test_images_of_a_batch_do_not_see_each_other():
    """Each image alone gives what it gives in the batch, in any memory layout, to 1e-4 of outputs of size 1."""
    net = perturbed(UNet(num_classes=10)).eval()
    x, t = inputs()
    y = torch.tensor([0, 3, 9, 10])
    with torch.no_grad():
        together = net(x, t, y)
        alone = torch.cat([net(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(4)])
        other = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), t, y)
    scale = together.abs().max()
    assert (together - alone).abs().max() < 1e-4 * scale
    assert (together - other).abs().max() < 1e-4 * scale


def test_attention_is_softmax_over_keys_with_one_head_at_a_time():
    """Against loops over images and heads, with the scale 1/sqrt(head size) written out; 1e-5."""
    torch.manual_seed(0)
    layer = perturbed(Attention(16, heads=2)).eval()
    x = torch.randn(2, 16, 3, 4)
    with torch.no_grad():
        got = layer(x)
        normed = torch.nn.functional.group_norm(x, 8, layer.norm.weight, layer.norm.bias)
        expected = torch.empty_like(x)
        for b in range(2):
            pixels = normed[b].reshape(16, 12).T  # (positions, channels)
            qkv = pixels @ layer.qkv.weight[:, :, 0, 0].T
            heads = []
            for h in range(2):
                q, k, v = (qkv[:, 16 * part + 8 * h : 16 * part + 8 * h + 8] for part in range(3))
                heads.append((q @ k.T / math.sqrt(8)).softmax(1) @ v)
            mixed = torch.cat(heads, 1) @ layer.out.weight[:, :, 0, 0].T
            expected[b] = x[b] + mixed.T.reshape(16, 3, 4)
    assert (got - expected).abs().max() < 1e-5


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    net = perturbed(UNet(dropout=0.5))
    x, t = inputs()
    with torch.no_grad():
        assert not torch.equal(net(x, t), net(x, t))
        net.eval()
        assert torch.equal(net(x, t), net(x, t))


def test_arguments_build_the_same_network_again():
    net = UNet(3, (16, 32), blocks=2, patch=1, num_classes=5, dropout=0.1, heads=2)
    again = UNet(**net.arguments)
    again.load_state_dict(net.state_dict())
    assert again.arguments == net.arguments


@pytest.mark.parametrize(
    "x, t, y, complaint",
    [
        (torch.zeros(4, 28, 28), torch.ones(4, dtype=torch.int64), None, r"x must have shape \(B, 1, H, W\)"),
        (torch.zeros(4, 3, 28, 28), torch.ones(4, dtype=torch.int64), None, r"x must have shape \(B, 1, H, W\)"),
        (torch.zeros(4, 1, 27, 29), torch.ones(4, dtype=torch.int64), None, r"multiples of 4 .*to \(28, 32\)"),
        (
            torch.zeros(4, 1, 28, 28),
            torch.ones(4, 1, dtype=torch.int64),
            None,
            r"t must have shape \(4,\).*got \(4, 1\)",
        ),
        (torch.zeros(4, 1, 28, 28), torch.rand(4), None, "t must hold integers"),
        (
            torch.zeros(4, 1, 28, 28),
            torch.ones(4, dtype=torch.int64),
            torch.zeros(3).long(),
            r"y must have shape \(4,\)",
        ),
        (torch.zeros(4, 1, 28, 28), torch.ones(4, dtype=torch.int64), torch.zeros(4), "y must hold integers"),
    ],
)
def test_wrong_inputs_are_named(x, t, y, complaint):
    with pytest.raises(ValueError, match=complaint):
        UNet(num_classes=10)(x, t, y)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="knows no classes"):
        UNet()(*inputs(), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="multiples of 8"):
        UNet(widths=(30, 60))
    with pytest.raises(ValueError, match="heads=3"):
        UNet(heads=3)
    for name, wrong in (("conv", "weird"), ("time", None), ("middle", "half"), ("downsample", "pool"), ("upsample", 2)):
        with pytest.raises(ValueError, match=f"{name} must be one of .*, got {wrong!r}"):
            UNet(**{name: wrong})
    for wrong in (("full",), ("full", "none"), ("full", None, None)):
        with pytest.raises(ValueError, match="attention must hold one of .* for each of 2 levels"):
            UNet(attention=wrong)
    with pytest.raises(ValueError, match="patch must be 1 or more"):
        UNet(patch=0)
    UNet(widths=(24, 40), heads=5)  # only widths with attention need divide into heads
    with pytest.raises(ValueError, match="heads=5"):
        UNet(widths=(24, 40), heads=5, attention=("linear", None))


# ---- every choice


def test_every_combination_of_choices_runs_and_is_rebuilt_from_its_arguments():
    """An output of the input's shape, finite, and the same from a network rebuilt from the stored arguments."""
    x, t = inputs(b=2, size=8)
    kinds = [CHOICES[name] for name in ("conv", "time", "downsample", "upsample", "middle")]
    for conv, time, down, up, middle in itertools.product(*kinds):
        for attention, self_condition in itertools.product((None, ("linear", "full")), (False, True)):
            net = UNet(
                1, (8, 16), heads=2, conv=conv, time=time, downsample=down, upsample=up, middle=middle,
                attention=attention, self_condition=self_condition,
            ).eval()  # fmt: skip
            again = UNet(**net.arguments).eval()
            again.load_state_dict(perturbed(net).state_dict())
            assert again.arguments == net.arguments
            with torch.no_grad():
                out = net(x, t)
                assert out.shape == x.shape and bool(out.isfinite().all()) and torch.equal(again(x, t), out)


def test_choices_that_are_defaults_are_not_stored():
    """A checkpoint of the plain network is then read by code that knows fewer keywords."""
    basic = {"channels", "widths", "blocks", "patch", "num_classes", "dropout", "heads"}
    assert set(UNet().arguments) == set(UNet(attention=(None, None), middle="full").arguments) == basic
    assert set(UNet(time="add", self_condition=True).arguments) == basic | {"time", "self_condition"}


def test_the_kind_of_attention_is_the_one_asked_for():
    """The same weights, mixed as the keyword says."""
    torch.manual_seed(0)
    net = perturbed(UNet(widths=(8, 16), heads=2))
    other = UNet(widths=(8, 16), heads=2, middle="linear")
    other.load_state_dict(net.state_dict())
    x, t = inputs(size=8)
    seen = {}
    for kind, layer in (("full", net.attention), ("linear", other.attention)):
        layer.register_forward_pre_hook(lambda layer, args, kind=kind: seen.update({kind: args[0]}))
    with torch.no_grad():
        assert (net(x, t) - other(x, t)).abs().max() > 1e-3
        assert torch.equal(seen["full"], seen["linear"])
        for kind, mix in (("full", F.scaled_dot_product_attention), ("linear", linear_attention)):
            qkv = net.attention.qkv(net.attention.norm(seen[kind])).flatten(2)  # (B, 48, N): 3 x 2 heads x 8
            q, k, v = qkv.unflatten(1, (3, 2, 8)).transpose(3, 4).unbind(1)
            mixed = mix(q, k, v).transpose(2, 3).reshape(seen[kind].shape)
            layer = net.attention if kind == "full" else other.attention
            assert (layer(seen[kind]) - seen[kind] - layer.out(mixed)).abs().max() < 1e-5


def test_attention_of_a_level_is_applied_on_both_ways():
    net = UNet(1, (16, 32, 48), blocks=2, attention=(None, "linear", None), middle=None)
    x, t = inputs(size=32)
    rows = [row for row in layer_table(net, x, t) if row.layer == "Attention"]
    assert [row.output for row in rows] == [(4, 32, 8, 8)] * 5  # twice down, three times up
    assert {layer.kind for layer in net.modules() if isinstance(layer, Attention)} == {"linear"}


def test_what_the_way_up_reads_comes_after_the_attention():
    """The skip of a level with attention is the attention's output: its weights change what the way up is given."""
    torch.manual_seed(0)
    net = perturbed(UNet(1, (16,), attention=("full",), middle=None, patch=1)).eval()
    seen = []
    net.up[0].register_forward_hook(lambda layer, args, out: seen.append(args[0][:, 16:]))
    net.down[1].register_forward_hook(lambda layer, args, out: seen.append(out))
    with torch.no_grad():
        net(*inputs(size=8))
    assert torch.equal(seen[0], seen[1])


# ---- the blocks against independent truths


@pytest.mark.parametrize("conv", [torch.nn.Conv2d, StandardisedConv2d])
def test_blocks_and_attention_start_as_their_skips(conv):
    torch.manual_seed(0)
    x, emb = torch.randn(2, 8, 6, 6), torch.randn(2, 12)
    block = ResidualBlock(8, 16, 12, conv=conv)
    assert torch.equal(block(x, emb), block.skip(x)) and torch.equal(Attention(8, 2)(x), x)
    block(x, emb).square().sum().backward()
    start = block.conv2.gain if conv is StandardisedConv2d else block.conv2.weight
    assert bool((start.grad != 0).all())  # and leave it with the first step


def test_standardised_kernels_have_mean_0_and_variance_1_over_the_fan_in():
    torch.manual_seed(0)
    layer = StandardisedConv2d(6, 5, 3, padding=1)
    with torch.no_grad():
        layer.weight.mul_(3).add_(0.7)
        layer.gain.copy_(torch.arange(1.0, 6).reshape(5, 1, 1, 1))
        basis = torch.eye(54).reshape(54, 6, 3, 3)  # one input pixel at a time reads the kernel back
        kernels = (layer(basis)[:, :, 1, 1] - layer.bias).T  # (5, 54)
        x = torch.randn(2, 6, 7, 5)
        assert (layer(x) - F.conv2d(x, _kernel(layer), layer.bias, padding=1)).abs().max() < 2e-3
    assert kernels.mean(1).abs().max() < 1e-6
    assert (kernels.std(1, correction=0) - torch.arange(1.0, 6) / math.sqrt(54)).abs().max() < 1e-3


def _kernel(layer):
    """The standardised kernels, computed one by one with plain numbers."""
    rows = []
    for kernel, gain in zip(layer.weight.detach().double(), layer.gain.detach().flatten().tolist(), strict=True):
        values = kernel.flatten().tolist()
        mean = sum(values) / len(values)
        std = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
        rows.append((kernel - mean) / std / math.sqrt(len(values)) * gain)
    return torch.stack(rows).float()


def test_linear_attention_is_two_products_with_two_softmaxes():
    """Written as loops over heads and positions: every output is an average of v with weights that sum to 1."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 7, 4).unbind()
    got = linear_attention(q, k, v)
    for b, n in itertools.product(range(2), range(3)):
        weights = q[b, n].softmax(1) @ k[b, n].softmax(0).T  # (7, 7): position i reads position j
        assert (weights.sum(1) - 1).abs().max() < 1e-6
        assert (got[b, n] - weights @ v[b, n]).abs().max() < 1e-5


def test_time_added_is_time_shifting_the_first_convolution():
    """ "add": a constant code added to every position before the second normalisation, so its bias can be taken over."""
    torch.manual_seed(0)
    block = perturbed(ResidualBlock(8, 16, 12, time="add"))
    x, emb = torch.randn(3, 8, 6, 6), torch.randn(3, 12)
    with torch.no_grad():
        for i in range(3):
            other = copy.deepcopy(block)
            other.conv1.bias += other.add(emb[i])
            other.add.weight.zero_()
            other.add.bias.zero_()
            assert (block(x[i : i + 1], emb[i : i + 1]) - other(x[i : i + 1], emb[i : i + 1])).abs().max() < 1e-5


def test_resampling_halves_and_doubles_and_space_to_depth_loses_nothing():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 10)
    for kind in CHOICES["downsample"]:
        assert downsampling(kind, 8)(x).shape == (2, 8, 3, 5)
    for kind in CHOICES["upsample"]:
        assert upsampling(kind, 8)(x).shape == (2, 8, 12, 20)
    stacked = downsampling("space_to_depth", 8)[0](x)
    assert stacked.shape == (2, 32, 3, 5) and torch.equal(F.pixel_shuffle(stacked, 2), x)


def test_layer_table_accounts_for_every_parameter_and_leaves_nothing_behind():
    for arguments in (dict(), dict(num_classes=4, widths=(16, 32, 48), blocks=2, middle=None, upsample="transposed")):
        net = UNet(**arguments).train()
        x, t = inputs(size=32)
        rows = layer_table(net, x, t)
        assert sum(row.parameters for row in rows) == sum(p.numel() for p in net.parameters())
        assert rows[-1].output[2:] == (16, 16) and len({row.name for row in rows}) == len(rows)
        assert net.training and not any(layer._forward_hooks for layer in net.modules())
        for row, layer in ((r, net.get_submodule(r.name)) for r in rows if r.layer == "ResidualBlock"):
            assert row.input[1] == layer.norm1.num_channels


# ---- self-conditioning


class Recorder(torch.nn.Module):
    """Remembers what it is given as x_self; its output depends on it, so that a gradient could leak."""

    self_condition = True

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))
        self.seen = []

    def forward(self, x, t, y=None, x_self=None):
        self.seen.append((len(x), x_self, torch.is_grad_enabled()))
        return self.weight * x + (0 if x_self is None else 0.25 * x_self)


def test_training_gives_half_of_the_items_their_first_estimate_and_no_gradient_through_it():
    diffusion = GaussianDiffusion(cosine_schedule(), "v")
    net, (x0, t), noise = Recorder(), inputs(b=5, size=4), inputs(b=5, size=4, seed=1)[0]
    loss = diffusion_loss(net, diffusion, x0, t=t, noise=noise)
    (n1, none, grad1), (n2, x_self, grad2) = net.seen
    assert (n1, none, grad1, n2, grad2) == (2, None, False, 5, True)
    xt = q_sample(diffusion.schedule, x0, t, noise)
    first = diffusion.decode(0.5 * xt, xt, t)[0]
    assert bool((x_self[::2] == 0).all()) and (x_self[1::2] - first[1::2]).abs().max() < 1e-6
    assert not x_self.requires_grad
    target = diffusion.target(x0, noise, t)
    expected = (0.5 * xt + 0.25 * x_self - target).square().flatten(1).mean(1)
    assert (loss - expected).abs().max() < 1e-6


def test_sampling_gives_the_estimate_of_the_step_before():
    diffusion = GaussianDiffusion(cosine_schedule(), "v")
    for make in (ancestral_steps, ddim_steps):
        net = Recorder()
        estimates = [step.x0 for step in make(net, diffusion, (2, 1, 4, 4), 5)]
        given = [x_self for _, x_self, _ in net.seen]
        assert given[0] is None and len(given) == 5
        assert all(torch.equal(a, b) for a, b in zip(given[1:], estimates, strict=False))


def test_guidance_gives_both_halves_the_same_estimate():
    net = perturbed(UNet(num_classes=3, self_condition=True)).eval()
    x, t = inputs()
    y, x_self = torch.tensor([0, 1, 2, 0]), inputs(seed=2)[0]
    guide = guided(net, 2.0)
    assert guide.self_condition
    with torch.no_grad():
        u, c = net(x, t, None, x_self), net(x, t, y, x_self)
        assert (guide(x, t, y, x_self=x_self) - (u + 2 * (c - u))).abs().max() < 1e-4
        assert (guide(x, t, y) - guide(x, t, y, x_self=torch.zeros_like(x))).abs().max() < 1e-5


def test_the_network_reads_an_estimate_within_the_range_of_images_and_none_as_zeros():
    net = perturbed(UNet(self_condition=True)).eval()
    x, t = inputs()
    with torch.no_grad():
        far = net(x, t, None, 50 * x)
        assert torch.equal(far, net(x, t, None, (50 * x).clamp(-1, 1))) and not torch.equal(far, net(x, t))
        assert torch.equal(net(x, t), net(x, t, None, torch.zeros_like(x)))
    with pytest.raises(ValueError, match="self_condition=True"):
        UNet()(x, t, None, x)
    with pytest.raises(ValueError, match="x_self must have the shape of x"):
        net(x, t, None, x[:2])


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
def test_every_weight_learns_with_self_conditioning(precision, monkeypatch):
    """The first estimate is made without gradients, in the same autocast's reach: a cached cast of a weight would have
    none either, and the weight would stand still."""
    monkeypatch.setattr(training_step, "mixed_precision", lambda device_type, bf16: precision)
    torch.manual_seed(0)
    net = perturbed(UNet(widths=(8, 16), heads=2, self_condition=True))
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    given = []
    net.register_forward_pre_hook(lambda layer, args, kwargs: given.append(kwargs.get("x_self")), with_kwargs=True)
    train(net, GaussianDiffusion(cosine_schedule(), "v"), images, steps=2, batch_size=8, device="cpu")
    assert [x_self is None for x_self in given] == [True, False] * 2 and bool((given[1][1::2] != 0).any())
    still = [name for name, p in net.named_parameters() if torch.equal(p, start[name])]
    assert still == []
