"""The loss: against its definition, and against the floor that the oracle sets."""

import pytest
import torch
from core import F64, every_prediction, normal, seeded

from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.losses import diffusion_loss
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.toy import bimodal, oracle

DISTANCES = {"l2": lambda d: d * d, "l1": abs, "huber": lambda d: 0.5 * d * d if abs(d) < 1 else abs(d) - 0.5}
X0, NOISE = normal(6, 1, 4, 4, dtype=torch.float32).clamp(-1, 1), normal(6, 1, 4, 4, seed=1, dtype=torch.float32)
T = torch.randint(1, 1001, (6,), generator=seeded())


@every_prediction
@pytest.mark.parametrize("kind", list(DISTANCES))
def test_one_number_an_image_by_hand(predicts, kind):
    """Against Python loops over pixels, with a network that returns 0.3 x_t; 1e-5. One that knows the answer has no loss."""
    diffusion = GaussianDiffusion(cosine_schedule(), predicts)
    loss = diffusion_loss(lambda x, t, y=None: 0.3 * x, diffusion, X0, kind=kind, t=T, noise=NOISE)
    assert loss.shape == (6,)
    target = diffusion.target(X0, NOISE, T)
    output = 0.3 * q_sample(diffusion.schedule, X0, T, NOISE)
    for i in range(6):
        pixels = zip(output[i].flatten().tolist(), target[i].flatten().tolist(), strict=True)
        by_hand = sum(DISTANCES[kind](a - b) for a, b in pixels) / 16
        assert abs(loss[i].item() - by_hand) < 1e-5
    assert (diffusion_loss(lambda x, t, y=None: target, diffusion, X0, kind=kind, t=T, noise=NOISE) == 0).all()


@every_prediction
def test_no_change_of_the_oracle_has_a_smaller_loss(predicts):
    """20,000 points of the two-peaked mixture, the same t and noise for all (seed 0). Every perturbation of size 0.1
    raises the mean squared error, by its own mean square (0.01 for a shift) within 5 standard errors."""
    mixture, diffusion, n = bimodal(F64), GaussianDiffusion(linear_schedule(100), predicts), 20_000
    x0, noise = mixture.sample(n, generator=seeded()), normal(n, 1, seed=1)
    t = diffusion.schedule.sample_t(n, generator=seeded(2))
    xt, exact = q_sample(diffusion.schedule, x0, t, noise), oracle(mixture, diffusion)
    floor = diffusion_loss(exact, diffusion, x0, t=t, noise=noise)
    changes = {
        "shift": lambda x, t: torch.full_like(x, 0.1),
        "slope": lambda x, t: 0.1 * x,
        "wave": lambda x, t: 0.1 * torch.sin(5 * x),
        "wrong late": lambda x, t: 0.1 * (t > 50)[:, None].double() * torch.sign(x),
    }
    for name, change in changes.items():
        net = lambda x, t, y=None, change=change: exact(x, t) + change(x, t)  # noqa: E731
        excess = diffusion_loss(net, diffusion, x0, t=t, noise=noise) - floor
        expected = change(xt, t).square().mean()
        assert excess.mean() > 0 and (excess.mean() - expected).abs() < 5 * excess.std() / n**0.5, name


def test_what_the_network_is_given():
    """t drawn first, then the noise, from the generator alone; the labels. Its output may be of low precision."""
    seen, y, before, drawn = [], torch.arange(6), torch.get_rng_state(), seeded(5)
    net, diffusion = lambda *args: seen.append(args) or args[0].to(torch.bfloat16), GaussianDiffusion(linear_schedule())
    loss = diffusion_loss(net, diffusion, X0, y, generator=seeded(5))
    assert loss.dtype == torch.float32 and torch.equal(before, torch.get_rng_state())
    t = torch.randint(1, 1001, (6,), generator=drawn)
    xt = q_sample(diffusion.schedule, X0, t, torch.randn(X0.shape, generator=drawn))
    assert all(torch.equal(a, b) for a, b in zip(seen[0], (xt, t, y), strict=True))
