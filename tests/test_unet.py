"""The network: gradients everywhere, distinct codes for t, what labels mean, and errors a student understands."""

import math

import pytest
import torch

from ddpm_course.unet import Attention, UNet, sinusoidal_embedding


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
    out = net(x, t, y)
    assert out.shape == x.shape
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for name, parameter in net.named_parameters():
        rows = parameter.grad.abs().flatten(1).amax(1) if parameter.ndim > 1 else parameter.grad.abs()
        assert bool((rows > 0).all()), f"no gradient reaches a row of {name}"


def test_starts_as_zero_and_learns_from_the_first_step():
    torch.manual_seed(0)
    net = UNet()
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
        (torch.zeros(4, 1, 27, 28), torch.ones(4, dtype=torch.int64), None, "multiples of 4"),
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
