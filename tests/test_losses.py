"""The loss: against its definition, and against the floor that the oracle sets."""

import pytest
import torch

from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.losses import diffusion_loss
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.toy import bimodal, oracle


def data(b=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.rand(b, 1, 4, 4, generator=generator) * 2 - 1
    return x0, torch.randint(1, 1001, (b,), generator=generator), torch.randn(b, 1, 4, 4, generator=generator)


@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
@pytest.mark.parametrize(
    "kind, distance",
    [
        ("l2", lambda d: d * d),
        ("l1", abs),
        ("huber", lambda d: 0.5 * d * d if abs(d) < 1 else abs(d) - 0.5),
    ],
)
def test_one_number_an_image_by_hand(predicts, kind, distance):
    """Against Python loops over pixels, with a network that returns 0.3 x_t; 1e-5."""
    diffusion = GaussianDiffusion(cosine_schedule(), predicts)
    x0, t, noise = data()
    loss = diffusion_loss(lambda x, t, y=None: 0.3 * x, diffusion, x0, kind=kind, t=t, noise=noise)
    assert loss.shape == (6,)
    target = diffusion.target(x0, noise, t)
    output = 0.3 * q_sample(diffusion.schedule, x0, t, noise)
    for i in range(6):
        pixels = zip(output[i].flatten().tolist(), target[i].flatten().tolist(), strict=True)
        by_hand = sum(distance(a - b) for a, b in pixels) / 16
        assert abs(loss[i].item() - by_hand) < 1e-5


@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
def test_a_network_that_knows_the_answer_has_no_loss(predicts):
    diffusion = GaussianDiffusion(linear_schedule(), predicts)
    x0, t, noise = data()
    for kind in ("l2", "l1", "huber"):
        net = lambda x, t, y=None: diffusion.target(x0, noise, t)  # noqa: E731
        assert diffusion_loss(net, diffusion, x0, kind=kind, t=t, noise=noise).abs().max() == 0


@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
def test_no_change_of_the_oracle_has_a_smaller_loss(predicts):
    """20,000 points of the two-peaked mixture, the same t and noise for all (seeds 0 and 1). Every perturbation of size
    0.1 raises the mean squared error, by its own mean square (0.01 for a shift) within 5 standard errors."""
    mixture = bimodal(torch.float64)
    diffusion = GaussianDiffusion(linear_schedule(100), predicts)
    n = 20_000
    generator = torch.Generator().manual_seed(0)
    x0 = mixture.sample(n, generator=generator)
    t = diffusion.schedule.sample_t(n, generator=generator)
    noise = torch.randn(n, 1, dtype=torch.float64, generator=generator)
    exact = oracle(mixture, diffusion)
    floor = diffusion_loss(exact, diffusion, x0, t=t, noise=noise)
    changes = {
        "shift up": lambda x, t: torch.full_like(x, 0.1),
        "shift down": lambda x, t: torch.full_like(x, -0.1),
        "slope": lambda x, t: 0.1 * x,
        "wave": lambda x, t: 0.1 * torch.sin(5 * x),
        "wrong late": lambda x, t: 0.1 * (t > 50)[:, None].double() * torch.sign(x),
    }
    for name, change in changes.items():
        net = lambda x, t, y=None, change=change: exact(x, t) + change(x, t)  # noqa: E731
        loss = diffusion_loss(net, diffusion, x0, t=t, noise=noise)
        xt = q_sample(diffusion.schedule, x0, t, noise)
        expected = change(xt, t).square().mean()
        excess = loss - floor
        assert excess.mean() > 0, name
        assert (excess.mean() - expected).abs() < 5 * excess.std() / n**0.5, name


def test_only_l2_is_least_at_the_conditional_mean():
    """Skewed data at -1 (90 %) or 1 (10 %) under much noise: the mean is near -0.8, but the median -1 has the smaller l1."""
    diffusion = GaussianDiffusion(linear_schedule(), "x0")
    x0 = torch.ones(10_000, 1)
    x0[:9000] = -1
    noise = torch.randn(10_000, 1, generator=torch.Generator().manual_seed(0))
    t = torch.full((10_000,), 1000)

    def loss(answer, kind):
        return diffusion_loss(
            lambda x, t, y: torch.full_like(x, answer), diffusion, x0, None, kind, t=t, noise=noise
        ).mean()

    assert loss(-0.8, "l2") < loss(-1.0, "l2") and loss(-1.0, "l1") < loss(-0.8, "l1")


def test_draws_t_first_then_noise_from_the_generator():
    diffusion = GaussianDiffusion(linear_schedule(), "v")
    x0 = data()[0]
    seen = {}

    def net(x, t, y=None):
        seen.update(x=x, t=t)
        return x

    before = torch.get_rng_state()
    diffusion_loss(net, diffusion, x0, generator=torch.Generator().manual_seed(5))
    assert torch.equal(before, torch.get_rng_state())
    generator = torch.Generator().manual_seed(5)
    t = torch.randint(1, 1001, (6,), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    assert torch.equal(seen["t"], t) and torch.equal(seen["x"], q_sample(diffusion.schedule, x0, t, noise))


def test_labels_reach_the_network():
    seen = []
    x0, t, noise = data()
    y = torch.arange(6)
    diffusion_loss(lambda x, t, y: seen.append(y) or x, GaussianDiffusion(linear_schedule()), x0, y, t=t, noise=noise)
    assert torch.equal(seen[0], y)


def test_low_precision_outputs_are_compared_in_float32():
    x0, t, noise = data()
    net = lambda x, t, y=None: x.to(torch.bfloat16)  # noqa: E731
    loss = diffusion_loss(net, GaussianDiffusion(linear_schedule()), x0, t=t, noise=noise)
    assert loss.dtype == torch.float32


def test_mistakes_are_named():
    diffusion = GaussianDiffusion(linear_schedule())
    x0, t, noise = data()
    same = lambda x, t, y=None: x  # noqa: E731
    with pytest.raises(ValueError, match="kind must be one of l2, l1, huber; got 'mse'"):
        diffusion_loss(same, diffusion, x0, kind="mse")
    with pytest.raises(ValueError, match=r"turned shape \(6, 1, 4, 4\) into \(6, 1, 4\)"):
        diffusion_loss(lambda x, t, y=None: x[..., 0], diffusion, x0)
    with pytest.raises(ValueError, match=r"t must have shape \(6,\)"):
        diffusion_loss(same, diffusion, x0, t=t[:, None], noise=noise)
    with pytest.raises(ValueError, match="noise must have the shape"):
        diffusion_loss(same, diffusion, x0, t=t, noise=noise[:1])
    with pytest.raises(ValueError, match="uint8"):
        diffusion_loss(same, diffusion, torch.zeros(6, 1, 4, 4, dtype=torch.uint8))
