"""What wraps a network: guidance, mixed precision, evaluation mode."""

import pytest
import torch
from core import normal, perturbed
from courses import python
from torch import nn

from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.nets import Guided, MixedPrecision, device_of, evaluating
from ddpm_course.samplers import ancestral_steps, sample
from ddpm_course.schedules import cosine_schedule
from ddpm_course.unet import UNet

T = torch.tensor([1, 50, 500, 1000])


def conditional(**arguments):
    torch.manual_seed(0)
    return perturbed(UNet(widths=(8, 16), num_classes=3, **arguments)).eval()


@pytest.mark.parametrize("self_condition", [False, True])
@torch.no_grad()
def test_guidance_interpolates_and_extrapolates(self_condition):
    """Scale 1 is the conditional network, 0 the unconditional one, 3 lies on their line, each to 1e-5."""
    net = conditional(self_condition=self_condition)
    x, y = normal(4, 1, 8, 8, dtype=torch.float32), torch.tensor([0, 1, 2, 3])
    earlier = dict(x_self=x.flip(0)) if self_condition else {}
    c, u = net(x, T, y, **earlier), net(x, T, **earlier)
    tolerance = 1e-5 * c.abs().max()
    for scale, expected in ((1, c), (0, u), (3, 3 * c - 2 * u)):
        guide = Guided(net, scale)
        assert (guide(x, T, y, **earlier) - expected).abs().max() < max(scale, 1) * tolerance
    assert (c - u)[:3].abs().amax((1, 2, 3)).min() > 100 * tolerance  # else the lines above would show nothing
    if self_condition:
        assert (guide(x, T, y) - guide(x, T, y, x_self=torch.zeros_like(x))).abs().max() < tolerance
        assert (guide(x, T, y) - guide(x, T, y, **earlier)).abs().max() > 100 * tolerance
    assert guide.self_condition == self_condition and device_of(guide) == torch.device("cpu")


@pytest.mark.parametrize("wrapped", [False, True])
def test_every_module_is_in_its_own_mode_again_even_after_an_error(wrapped):
    net = conditional()  # evaluating but for one part, maybe inside a wrapper that is in training mode itself
    net.middle1.train()
    outer = Guided(net, 2.0) if wrapped else net
    before = [module.training for module in outer.modules()]
    with pytest.raises(KeyError), evaluating(outer):
        assert any(before) and not any(module.training for module in outer.modules())
        raise KeyError
    assert [module.training for module in outer.modules()] == before
    steps = ancestral_steps(outer, GaussianDiffusion(cosine_schedule()), (2, 1, 8, 8), 3, y=torch.tensor([0, 1]))
    assert torch.isfinite(sample(steps, progress=False)).all()
    assert [module.training for module in outer.modules()] == before


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_mixed_precision_casts_products_only_and_forwards_labels_and_x_self(dtype):
    class Net(nn.Linear):
        self_condition = True

        def forward(self, x, t, y=None, x_self=None):
            self.given = (t, y, x_self)
            return super().forward(x)

    net, x, y = Net(8, 8), torch.randn(4, 8), torch.arange(4)
    mixed = MixedPrecision(net, dtype)
    assert mixed.self_condition and [*mixed.parameters()] == [*net.parameters()]
    for earlier in (None, x.flip(0)):
        assert mixed(x, T, y, x_self=earlier).dtype == (dtype or torch.float32)
        assert all(a is b for a, b in zip(net.given, (T, y, earlier), strict=True))
    assert net.weight.dtype == torch.float32
    function = MixedPrecision(lambda x, t, y: x @ x.T, dtype)  # one that knows no x_self is not given it
    assert not function.self_condition and function(x, T, y).dtype == (dtype or torch.float32)


def test_the_judge_is_still_trained_by_its_old_name():
    assert "Train the classifier" in python("-m", "ddpm_course.metrics", "--help")
