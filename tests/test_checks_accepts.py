"""Correct answers that differ in structure: all of them are accepted, none is told to be something else."""

import functools
import math

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddpm_course import checks, diffusion
from ddpm_course.checks.running import instance


def column(values, x):
    return values.reshape(-1, *[1] * (x.ndim - 1)).to(x)


# ---- 0.1


def range_divide(images):
    return images / 127.5 - 1


def range_lookup(images):
    return torch.linspace(-1, 1, 256)[images.long()]


def range_numpy(images):
    return torch.from_numpy(np.interp(images.numpy(), [0, 255], [-1, 1]).astype(np.float32))


def range_in_place(images):
    x = images.to(torch.float64)
    x -= 127.5
    x /= 127.5
    return x.float()


def range_lerp(images):
    return torch.lerp(torch.tensor(-1.0), torch.tensor(1.0), images.float() / 255)


def range_unit_first(images):
    unit = images.to(torch.float32).div_(255)
    return (unit - 0.5) / 0.5


# ---- 1.1


def bytes_clamp_round(x):
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def bytes_floor_half(x):
    return torch.floor((x * 127.5 + 127.5).clip(0, 255) + 0.5).byte()


def bytes_numpy(x):
    return torch.from_numpy(np.rint(np.clip((x.numpy() + 1) / 2, 0, 1) * 255).astype("uint8"))


def bytes_nearest_level(x):
    levels = torch.arange(256) / 127.5 - 1
    return (x[..., None] - levels).abs().argmin(-1).to(torch.uint8)


def bytes_where(x):
    y = torch.round(255 * (x + 1) / 2)
    y = torch.where(y > 255, torch.full_like(y, 255), y)
    return torch.where(y < 0, torch.zeros_like(y), y).type(torch.uint8)


def bytes_hardtanh(x):
    return F.hardtanh(x).add(1).mul(127.5).round().byte()


# ---- 1.2, 2.3, 2.4: the same shapes of answer for three formulas


def forms(table, formula):
    """Answers of (schedule, x, t, noise) for a formula of (entry, x, noise), structured differently."""

    def reshaped(schedule, x, t, noise):
        entry = getattr(schedule, table)[t]
        if isinstance(t, torch.Tensor):
            entry = entry.reshape(-1, *(1,) * (x.dim() - 1))
        return formula(entry.to(x.dtype), x, noise)

    def looping(schedule, x, t, noise):
        ts = [t] * len(x) if isinstance(t, int) else t.tolist()
        entries = getattr(schedule, table).float()
        return torch.stack([formula(entries[s], a, e) for s, a, e in zip(ts, x, noise, strict=True)])

    def pixel_by_pixel(schedule, x, t, noise):
        out = torch.empty_like(x)
        for i in range(len(x)):
            entry = float(getattr(schedule, table)[t if isinstance(t, int) else t[i]])
            for j in np.ndindex(*x.shape[1:]):
                out[(i, *j)] = formula(torch.tensor(entry), x[(i, *j)], noise[(i, *j)])
        return out

    def transposed(schedule, x, t, noise):
        entry = getattr(schedule, table)[t].float()
        return formula(entry, x.movedim(0, -1), noise.movedim(0, -1)).movedim(-1, 0)

    def flattened(schedule, x, t, noise):
        entry = getattr(schedule, table)[t].double().reshape(-1, 1)
        flat = formula(entry, x.reshape(len(x), -1).double(), noise.reshape(len(x), -1).double())
        return flat.float().view_as(x)

    def with_einops(schedule, x, t, noise):
        entry = getattr(schedule, table)[torch.as_tensor(t).expand(len(x))]
        entry = einops.rearrange(entry, "b -> b" + " 1" * (x.ndim - 1))
        return formula(entry, x.double(), noise.double()).to(torch.float32)

    def with_numpy(schedule, x, t, noise):
        entry = getattr(schedule, table).numpy()[np.asarray(t)].reshape(-1, *[1] * (x.ndim - 1))
        return formula(torch.from_numpy(np.asarray(entry)), x, noise).float()

    def in_place(schedule, x, t, noise):
        entry = column(torch.as_tensor(getattr(schedule, table)[t]), x)
        out = x.clone()
        out += formula(entry, x, noise) - x
        return out

    def gathered(schedule, x, t, noise):
        t = torch.full((len(x),), t) if isinstance(t, int) else t
        entry = getattr(schedule, table).gather(0, t).float()
        return formula(entry.view(t.shape[0], *((1,) * (len(x.shape) - 1))), x, noise)

    class Callable:
        def __call__(self, schedule, x, t, noise):
            return reshaped(schedule, x, t, noise)

    class Module(torch.nn.Module):
        def forward(self, schedule, x, t, noise):
            return reshaped(schedule, x, t, noise)

    return [
        *(reshaped, looping, pixel_by_pixel, transposed, flattened, with_einops, with_numpy, in_place, gathered),
        *(Callable(), Module(), Callable, functools.partial(reshaped), Callable().__call__),
        torch.no_grad()(reshaped),
        lambda *args: reshaped(*args),
    ]


def step_formula(beta, x, noise):
    return (1 - beta).sqrt() * x + beta.sqrt() * noise


def closed_formula(ab, x0, noise):
    return ab.sqrt() * x0 + (1 - ab).sqrt() * noise


def back_formula(ab, xt, noise):
    return (xt - (1 - ab).sqrt() * noise) / ab.sqrt()


def step_by_sine(schedule, x, t, noise):
    angle = column(torch.asin(schedule.beta[t].sqrt()), x)
    return torch.cos(angle) * x + torch.sin(angle) * noise


def step_by_method(schedule, x, t, noise):
    return schedule.at("alpha", t, x).sqrt() * x + schedule.at("beta", t, x).sqrt() * noise


def step_by_addcmul(schedule, x, t, noise):
    beta = schedule.at("beta", t, x)
    return torch.addcmul((1 - beta).sqrt() * x, beta.sqrt(), noise)


def closed_by_recomputing(schedule, x0, t, noise):
    ab = torch.cat([torch.ones(1), torch.cumprod(1 - schedule.beta[1:], 0)])[t]
    return closed_formula(column(ab, x0), x0, noise)


def closed_by_snr(schedule, x0, t, noise):
    signal = torch.sigmoid(torch.logit(schedule.alpha_bar))[t].sqrt()
    return column(signal, x0) * x0 + column((1 - signal**2).sqrt(), x0) * noise


def closed_by_logarithm(schedule, x0, t, noise):
    half = 0.5 * schedule.alpha.log().cumsum(0)[t]
    return torch.exp(column(half, x0)) * x0 + torch.sqrt(1 - torch.exp(2 * column(half, x0))) * noise


def back_by_coefficients(schedule, xt, t, noise):
    signal, sigma = schedule.q_coefficients(t, xt)
    return xt / signal - sigma / signal * noise


def back_as_ddim_prints_it(schedule, xt, t, noise):
    ab = column(schedule.alpha_bar[t], xt)
    return (1 / ab).sqrt() * xt - (1 / ab - 1).sqrt() * noise


# ---- 1.3


def chain_list(schedule, x0, generator):
    xs = [x0]
    for t in range(1, schedule.T + 1):
        xs.append(diffusion.q_step(schedule, xs[-1], t, torch.randn(x0.shape, generator=generator)))
    return torch.stack(xs)


def chain_filled(schedule, x0, generator):
    out = torch.empty((schedule.T + 1,) + x0.shape)
    out[0] = x0
    for t in range(schedule.T):
        out[t + 1] = diffusion.q_step(schedule, out[t], t + 1, torch.randn(*x0.shape, generator=generator))
    return out


def chain_in_place(schedule, x0, generator):
    x, out = x0.clone(), [x0[None]]
    for beta in schedule.beta[1:].tolist():
        x.mul_((1 - beta) ** 0.5).add_(torch.randn(x0.shape, generator=generator), alpha=beta**0.5)
        out.append(x.clone()[None])
    return torch.cat(out)


def chain_recursive(schedule, x0, generator):
    def upto(t):
        if t == 0:
            return [x0]
        before = upto(t - 1)
        return [*before, diffusion.q_step(schedule, before[-1], t, torch.randn(x0.shape, generator=generator))]

    return torch.stack(upto(schedule.T))


def chain_generator(schedule, x0, generator):
    def walk(x):
        yield x
        for t in torch.arange(1, schedule.T + 1):
            ts = t.expand(len(x))
            x = diffusion.q_step(schedule, x, ts, torch.empty_like(x).normal_(generator=generator))
            yield x

    return torch.stack(tuple(walk(x0)), dim=0)


def chain_noises_first(schedule, x0, generator):
    noises = [torch.randn(x0.shape, generator=generator) for _ in range(schedule.T)]
    return torch.stack(
        list(
            functools.reduce(lambda xs, te: [*xs, diffusion.q_step(schedule, xs[-1], *te)], enumerate(noises, 1), [x0])
        )
    )


# ---- 1.4, 2.1


def variance_mixed(variance, beta):
    return variance + beta * (1 - variance)


def variance_expanded(variance, beta):
    return variance - beta * variance + beta


def variance_by_factors(variance, beta):
    signal, noise = (1 - beta) ** 0.5, beta**0.5
    return signal**2 * variance + noise**2


def variance_around_fixed_point(variance, beta):
    return 1 + (1 - beta) * (variance - 1)


def variance_in_double(variance, beta):
    made = (1 - torch.as_tensor(beta, dtype=torch.float64)) * torch.as_tensor(variance, dtype=torch.float64)
    made = made + torch.as_tensor(beta, dtype=torch.float64)
    return made.float() if isinstance(variance, torch.Tensor) else made.item()


def variance_lerp(variance, beta):
    v, b = torch.as_tensor(variance), torch.as_tensor(beta, dtype=torch.float32)
    return torch.lerp(v, torch.ones_like(v), b)


def merge_power(a, b):
    return (a**2 + b**2) ** 0.5


def merge_complex(a, b):
    if isinstance(a, torch.Tensor):
        return torch.complex(a, b).abs()
    return abs(complex(a, b))


def merge_branches(a, b):
    return torch.hypot(a, b) if torch.is_tensor(a) else math.hypot(a, b)


def merge_numpy(a, b):
    return np.sqrt(np.square(a) + np.square(b))


def merge_norm(a, b):
    return torch.linalg.vector_norm(torch.stack([torch.as_tensor(a), torch.as_tensor(b)]), dim=0)


def merge_as_tensors(a, b):
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return torch.sqrt(a * a + b * b)


# ---- 2.2


def bars_cat(betas):
    return torch.cat([torch.ones(1), torch.cumprod(1 - betas, dim=0)])


def bars_pad(betas):
    return F.pad(1 - betas, (1, 0), value=1.0).cumprod(-1)


def bars_loop(betas):
    out = [1.0]
    for beta in betas:
        out.append(out[-1] * (1 - float(beta)))
    return torch.tensor(out)


def bars_products(betas):
    return torch.stack([torch.prod(1 - betas[:t]) for t in range(len(betas) + 1)])


def bars_logarithms(betas):
    table = torch.zeros(len(betas) + 1, dtype=torch.float64)
    table[1:] = torch.log1p(-betas.double()).cumsum(0)
    return table.exp()


def bars_numpy(betas):
    return torch.from_numpy(np.cumprod(np.append(1, 1 - betas.numpy())))


def bars_triangle(betas):
    keep = torch.tril(torch.ones(len(betas) + 1, len(betas), dtype=torch.bool), -1)
    return torch.where(keep, 1 - betas, torch.ones_like(betas)).prod(dim=1)


# ---- 2.5


def equal_loop(schedule):
    t = 0
    while schedule.alpha_bar[t] > 0.5:
        t += 1
    return t


def equal_next(schedule):
    return next(t for t, ab in enumerate(schedule.alpha_bar.tolist()) if ab <= 1 - ab)


def equal_argmax(schedule):
    return (schedule.alpha_bar <= 0.5).int().argmax().item()


def equal_count(schedule):
    return int((schedule.alpha_bar > 0.5).sum())


def equal_tensor(schedule):
    return torch.where(schedule.snr <= 1)[0][0]


def equal_numpy(schedule):
    return np.flatnonzero(schedule.alpha_bar.numpy() <= 0.5)[0]


def equal_search(schedule):
    return int(torch.searchsorted(1 - schedule.alpha_bar, 0.5))


RIGHT = {
    "to_model_range": [range_divide, range_lookup, range_numpy, range_in_place, range_lerp, range_unit_first],
    "to_uint8": [
        *(bytes_clamp_round, bytes_floor_half, bytes_numpy, bytes_nearest_level, bytes_where, bytes_hardtanh),
    ],
    "q_step": [*forms("beta", step_formula), step_by_sine, step_by_method, step_by_addcmul],
    "diffuse": [chain_list, chain_filled, chain_in_place, chain_recursive, chain_generator, chain_noises_first],
    "next_variance": [
        *(variance_mixed, variance_expanded, variance_by_factors, variance_around_fixed_point),
        *(variance_in_double, variance_lerp),
    ],
    "merge_noises": [merge_power, merge_complex, merge_branches, merge_numpy, merge_norm, merge_as_tensors],
    "alpha_bars": [bars_cat, bars_pad, bars_loop, bars_products, bars_logarithms, bars_numpy, bars_triangle],
    "q_sample": [*forms("alpha_bar", closed_formula), closed_by_recomputing, closed_by_snr, closed_by_logarithm],
    "predict_x0": [*forms("alpha_bar", back_formula), back_by_coefficients, back_as_ddim_prints_it],
    "equal_t": [equal_loop, equal_next, equal_argmax, equal_count, equal_tensor, equal_numpy, equal_search],
}
ROWS = [(name, function) for name, functions in RIGHT.items() for function in functions]


@pytest.mark.parametrize(("name", "function"), ROWS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(ROWS)])
def test_a_right_answer_is_accepted(name, function):
    exercise = getattr(checks, name)
    verdict = exercise.check(instance(function))
    assert verdict.solved and verdict.passed == verdict.cases, verdict


def test_every_exercise_has_five_right_answers_and_every_one_is_an_exercise():
    """Those of lessons 00 to 02; each later lesson's stand in tests of its own."""
    assert set(RIGHT) == {exercise.name for exercise in checks.EXERCISES if exercise.lesson < "03"}
    assert all(len(functions) >= 5 for functions in RIGHT.values())
