"""Lesson 03: wrong answers typed as students type them, and right ones that differ in structure.

None of the wrong ones is taken from the catalogue. `WRONG` has one mistake each, by its id; `LOCATED` has two at once,
or one that no catalogue knows, and must never be given a name.
"""

import math

import einops
import numpy as np
import pytest
import torch
from typed import judge

from ddpm_course import checks
from ddpm_course.exercises import lesson03

COSINE = "t = torch.arange(T + 1, dtype=torch.float64)\nf = torch.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2\n"
KL = "a, m = alpha_bar_T, mean_square\nreturn "
TABLE = "lam = torch.linspace({}, {}, T, dtype=torch.float64)\nreturn torch.cat([torch.ones(1), torch.sigmoid(lam)])"

WRONG = [
    # 3.1
    ("linear_betas", "first + (last - first) * torch.arange(T) / T", "never_reaches_last"),
    ("linear_betas", "torch.arange(first, last, (last - first) / T, dtype=torch.float64)[:T]", "never_reaches_last"),
    ("linear_betas", "first + (last - first) * torch.arange(1, T + 1) / T", "misses_first"),
    ("linear_betas", "torch.from_numpy(np.linspace(first, last, T + 1))", "one_too_many"),
    ("linear_betas", "torch.tensor([0.0, *np.linspace(first, last, T)])", "entry_for_clean_data"),
    ("linear_betas", "torch.linspace(first, last, T - 1)", "one_too_few"),
    ("linear_betas", "torch.linspace(0.0001, 0.02, T)", "fixed_ends"),
    ("linear_betas", "torch.linspace(first, last, 1000)[0:T]", "fixed_T"),
    ("linear_betas", "torch.linspace(last, first, T)", "falling"),
    ("linear_betas", "torch.linspace(1 - first, 1 - last, T)", "alphas"),
    ("linear_betas", "torch.cumprod(1 - torch.linspace(first, last, T), 0)", "alpha_bars"),
    ("linear_betas", "torch.logspace(math.log10(first), math.log10(last), T)", "geometric"),
    ("linear_betas", "first * (last / first) ** (torch.arange(T) / (T - 1))", "geometric"),
    ("linear_betas", "torch.linspace(first ** 0.5, last ** 0.5, T) ** 2", "quadratic"),
    ("linear_betas", "torch.linspace(first, last, T).square()", "squared"),
    ("linear_betas", "torch.linspace(first, last, T).sqrt()", "rooted"),
    ("linear_betas", "torch.linspace(0, last, T)", "from_zero"),
    ("linear_betas", "last * torch.arange(1, T + 1) / T", "without_first"),
    ("linear_betas", "first + last * torch.arange(T) / (T - 1)", "first_not_subtracted"),
    ("linear_betas", "k = 1000 / T\nreturn torch.linspace(first * k, last * k, T)", "rescaled"),
    # 3.2
    ("quadratic_betas", "torch.linspace(math.sqrt(first), math.sqrt(last), T)", "not_squared"),
    ("quadratic_betas", "torch.linspace(first, last, T) ** 2", "ends_not_rooted"),
    ("quadratic_betas", "u = torch.arange(T) / (T - 1)\nreturn first + (last - first) * u ** 2", "squared_ramp"),
    ("quadratic_betas", "torch.linspace(first, last, T)", "linear"),
    ("quadratic_betas", "torch.linspace(first ** 2, last ** 2, T) ** 0.5", "wrong_way"),
    ("quadratic_betas", "torch.sqrt(torch.linspace(first, last, T))", "rooted_ramp"),
    ("quadratic_betas", "(torch.linspace(first ** 0.5, last ** 0.5, T) ** 2) ** 2", "fourth_power"),
    ("quadratic_betas", "torch.linspace(0, last ** 0.5, T) ** 2", "last_alone"),
    ("quadratic_betas", "torch.linspace(1e-4 ** 0.5, 0.02 ** 0.5, T) ** 2", "fixed_ends"),
    ("quadratic_betas", "torch.linspace(first ** 0.5, last ** 0.5, T + 1) ** 2", "one_too_many"),
    ("quadratic_betas", "torch.linspace(first ** 0.5, last ** 0.5, T + 1)[1:] ** 2", "misses_first"),
    ("quadratic_betas", "torch.linspace(last ** 0.5, first ** 0.5, T) ** 2", "falling"),
    ("quadratic_betas", "1 - torch.linspace(first ** 0.5, last ** 0.5, T) ** 2", "alphas"),
    # 3.3
    ("cosine_alpha_bars", COSINE + "return f / f", "divided_by_itself"),
    ("cosine_alpha_bars", COSINE.replace(" ** 2", "") + "return f / f[0]", "not_squared"),
    ("cosine_alpha_bars", COSINE + "return f", "not_divided"),
    ("cosine_alpha_bars", "torch.cos(torch.linspace(0, 1, T + 1) * math.pi / 2) ** 2", "no_offset"),
    ("cosine_alpha_bars", COSINE.replace("T + 1", "T") + "return f / f[0]", "T_points"),
    ("cosine_alpha_bars", COSINE.replace("arange(T + 1", "arange(1, T + 1") + "return f / f[0]", "T_points"),
    ("cosine_alpha_bars", COSINE.replace(" / (1 + s)", "") + "return f / f[0]", "past_the_quarter"),
    ("cosine_alpha_bars", COSINE.replace("(t / T + s) / (1 + s)", "(t / T + s / (1 + s))") + "return f / f[0]", "parentheses"),
    ("cosine_alpha_bars", COSINE.replace("(t / T + s) / (1 + s)", "(t + s) / (T + s)") + "return f / f[0]", "s_added_to_t"),
    ("cosine_alpha_bars", COSINE.replace("math.pi / 2", "math.pi") + "return f / f[0]", "half_turn"),
    ("cosine_alpha_bars", COSINE.replace(" * math.pi / 2", "") + "return f / f[0]", "no_pi"),
    ("cosine_alpha_bars", COSINE.replace("cos", "sin") + "return f / f[0]", "sine"),
    ("cosine_alpha_bars", COSINE + "return 1 - f / f[0]", "complement"),
    ("cosine_alpha_bars", COSINE + "return f / f[-1]", "divided_by_the_last"),
    ("cosine_alpha_bars", COSINE + "a = f / f[0]\nreturn (1 - a[1:] / a[:-1]).clamp(max=0.999)", "betas"),
    ("cosine_alpha_bars", "s = 0.008\n" + COSINE + "return f / f[0]", "fixed_offset"),
    ("cosine_alpha_bars", COSINE + "return torch.cumprod(f / f[0], dim=0)", "multiplied_up"),
    # 3.4
    ("betas_from_alpha_bars", "1 - alpha_bars[1:] / alpha_bars[:-1]", "no_clip"),
    ("betas_from_alpha_bars", "torch.clip(1 - alpha_bars[1:] / alpha_bars[:-1], 0, 0.999)", "fixed_clip"),
    ("betas_from_alpha_bars", "torch.clamp(1 - alpha_bars[1:] / alpha_bars[:-1], largest)", "clipped_from_below"),
    ("betas_from_alpha_bars", "(1 - alpha_bars[:-1] / alpha_bars[1:]).clamp(max=largest)", "ratio_turned"),
    ("betas_from_alpha_bars", "(alpha_bars[1:] / alpha_bars[:-1]).clamp(max=largest)", "alphas"),
    ("betas_from_alpha_bars", "(-alpha_bars.diff()).clamp(max=largest)", "difference"),
    ("betas_from_alpha_bars", "(1 - alpha_bars[1:]).clamp(max=largest)", "no_division"),
    ("betas_from_alpha_bars", "(1 - alpha_bars).clamp(max=largest)", "entry_for_clean_data"),
    ("betas_from_alpha_bars", "(1 - alpha_bars / torch.roll(alpha_bars, 1)).clamp(max=largest)", "rolled"),
    ("betas_from_alpha_bars", "(1 - (alpha_bars[1:] / alpha_bars[:-1]) ** 0.5).clamp(max=largest)", "rooted"),
    ("betas_from_alpha_bars", "(-torch.log(alpha_bars[1:] / alpha_bars[:-1])).clamp(max=largest)", "logarithm"),
    ("betas_from_alpha_bars", "b = 1 - alpha_bars[1:] / alpha_bars[:-1]\nreturn largest * b / b.max()", "squeezed"),
    ("betas_from_alpha_bars", "(1 - alpha_bars[1:-1] / alpha_bars[:-2]).clamp(max=largest)", "last_step_lost"),
    # 3.5
    ("prior_bits", KL + "0.5 * (a * m + (1 - a) - 1 - torch.log(1 - a))", "nats"),
    ("prior_bits", KL + "0.5 * (a * m - a - torch.log(1 - a)) * math.log(2)", "times_ln_2"),
    ("prior_bits", KL + "(a * m - a - torch.log(1 - a)) / math.log(2)", "half_forgotten"),
    ("prior_bits", KL + "a * m - a - torch.log(1 - a)", "half_forgotten_nats"),
    ("prior_bits", KL + "0.5 * (a * m - a - torch.log2(1 - a))", "bits_in_one_term"),
    ("prior_bits", KL + "-torch.log2(1 - a) / 2", "mean_square_forgotten"),
    ("prior_bits", KL + "0.5 * (m + (1 - a) - 1 - math.log(1 - a)) / math.log(2)", "signal_unscaled"),
    ("prior_bits", KL + "0.5 * (a.sqrt() * m - a - math.log(1 - a)) / math.log(2)", "signal_not_squared"),
    ("prior_bits", KL + "0.5 * (a * m ** 2 - a - math.log(1 - a)) / math.log(2)", "signal_squared_twice"),
    ("prior_bits", KL + "0.5 * (a * m + a - 1 - math.log(a)) / math.log(2)", "variance_for_signal"),
    ("prior_bits", KL + "0.5 * (a * m - a - math.log((1 - a) ** 0.5)) / math.log(2)", "log_of_deviation"),
    ("prior_bits", KL + "0.5 * (a * m + 1 - a - math.log(1 - a)) / math.log(2)", "one_forgotten"),
    ("prior_bits", KL + "0.5 * (a * m - a + math.log(1 - a)) / math.log(2)", "log_sign"),
    ("prior_bits", KL + "0.5 * (a * m + (1 - a) - 1) / math.log(2)", "log_forgotten"),
    ("prior_bits", KL + "0.5 * (-a - math.log(1 - a)) / math.log(2)", "mean_forgotten"),
    ("prior_bits", KL + "a * m / 2 / math.log(2)", "approximation"),
    ("prior_bits", KL + "0.5 * (1 / (1 - a) + a * m / (1 - a) - 1 + torch.log(1 - a)) / math.log(2)", "turned_around"),
    # 3.6
    ("rescaled_betas", "torch.linspace(1e-4, 0.02, T) * (1000 / T)", "no_bound"),
    ("rescaled_betas", "torch.linspace(0.1 / T, 20 / T, T)", "no_bound"),
    ("rescaled_betas", "(torch.linspace(1e-4, 0.02, T) * 1000 / T).clamp(max=1)", "bound_at_one"),
    ("rescaled_betas", "torch.linspace(1e-4, 0.02, T).clamp(max=0.999)", "not_rescaled"),
    ("rescaled_betas", "(torch.linspace(1e-4, 0.02, T) * T / 1000).clamp(max=0.999)", "scaled_the_wrong_way"),
    ("rescaled_betas", "torch.linspace(1e-4, min(0.02 * 1000 / T, 0.999), T)", "only_last_scaled"),
    ("rescaled_betas", "k = 1000 // T\nreturn (torch.linspace(1e-4, 0.02, T) * k).clamp(max=0.999)", "whole_factor"),
    ("rescaled_betas", "torch.linspace(min(0.1 / T, 0.999), min(20 / T, 0.999), T)", "bounded_ends"),
    ("rescaled_betas", "(torch.linspace(1e-4, 0.02, T) * 1000 / T).clip(0, 0.02)", "bounded_at_last"),
    ("rescaled_betas", "torch.linspace(1e-4, 0.02, T) * math.sqrt(1000 / T)", "root_of_the_factor"),
    ("rescaled_betas", "torch.linspace(0.1 / T, 20 / T, T).clamp(0.999)", "bounded_from_below"),
    ("rescaled_betas", "b = torch.linspace(0.1 / T, 20 / T, T)\nreturn b / max(1, b.max() / 0.999)", "squeezed"),
    # 3.7
    ("my_alpha_bars", "torch.sigmoid(torch.linspace(9, -10, T))", "no_first_entry"),
    ("my_alpha_bars", "torch.linspace(1e-4, 0.02, T)", "betas"),
    ("my_alpha_bars", "torch.linspace(9, -10, T + 1)", "no_share"),
    ("my_alpha_bars", "torch.sigmoid(torch.linspace(9, -10, T + 1))", "first_not_one"),
    ("my_alpha_bars", TABLE.format(-10, 9), "not_falling"),
    ("my_alpha_bars", "1 - torch.arange(T + 1) / T", "step_too_large"),
    ("my_alpha_bars", "s = 0.008\n" + COSINE + "return f / f[0]", "step_too_large"),
    ("my_alpha_bars", TABLE.format(9, -8), "signal_left"),
    ("my_alpha_bars", "1 - 0.9 * torch.arange(T + 1) / T", "signal_left"),
    ("my_alpha_bars", "a = torch.cumprod(1 - torch.linspace(1e-4, 0.02, T), 0)\nreturn torch.cat([torch.ones(1), a])", "T_ignored"),
    ("my_alpha_bars", "0.99 ** torch.arange(T + 1, dtype=torch.float64)", "T_ignored"),
    ("my_alpha_bars", TABLE.format(9, -30), "uneven"),
    ("my_alpha_bars", TABLE.format(4, -10), "uneven"),
    ("my_alpha_bars", "math.exp(-10.05 / T) ** torch.arange(T + 1, dtype=torch.float64)", "uneven"),
]  # fmt: skip

LOCATED = [
    ("linear_betas", "torch.linspace(first, last, T)[None]", "shape"),
    ("linear_betas", "list(np.linspace(first, last, T))", "type"),
    ("linear_betas", "torch.linspace(first, last / 2, T)", "values"),
    ("linear_betas", "torch.arange(first, last, T)", "shape"),
    ("linear_betas", "torch.linspace(first, last)", "raises"),
    ("quadratic_betas", "torch.linspace(first ** 0.5, last ** 0.5, T) ** 3", "values"),
    ("quadratic_betas", "betas = torch.linspace(first ** 0.5, last ** 0.5, T)\nbetas **= 2", "none"),
    ("quadratic_betas", "torch.linspace(first, last, T, 2)", "raises"),
    ("cosine_alpha_bars", COSINE.replace("** 2", "** 3") + "return f / f[0]", "values"),
    ("cosine_alpha_bars", COSINE.replace("T + 1", "T") + "return f", "shape"),
    ("betas_from_alpha_bars", "1 - alpha_bars[1:] / alpha_bars", "raises"),
    ("betas_from_alpha_bars", "(1 - alpha_bars[:-1]).clamp(max=largest)", "values"),
    ("betas_from_alpha_bars", "(1 - alpha_bars[1:] / alpha_bars[:-1]).clip(0.0001, largest)", "values"),
    ("betas_from_alpha_bars", "min(1 - alpha_bars[1:] / alpha_bars[:-1], largest)", "raises"),
    ("prior_bits", KL + "0.5 * (a * m - a - math.log(1 - a)) / math.log(10)", "values"),
    ("prior_bits", KL + "0.25 * (a * m - a - math.log(1 - a)) / math.log(2)", "values"),
    ("prior_bits", KL + "torch.stack([a, a])", "type"),
    ("rescaled_betas", "(torch.linspace(1e-4, 0.02, T) * 100 / T).clamp(max=0.999)", "values"),
    ("rescaled_betas", "torch.linspace(1e-4, 0.02, 1000 / T)", "raises"),
    ("my_alpha_bars", "torch.ones(T + 1, 1)", "shape"),
    ("my_alpha_bars", "[1] * (T + 1)", "type"),
    ("my_alpha_bars", "torch.full((T + 1,), float('nan'))", "nan"),
    ("my_alpha_bars", "return 1 / 0", "raises"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "mistake"), WRONG, ids=[f"{n}-{m}-{i}" for i, (n, _, m) in enumerate(WRONG)])
def test_a_typed_mistake_gets_its_name(name, body, mistake):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake) == ("wrong", mistake), verdict


@pytest.mark.parametrize(
    ("name", "body", "problem"), LOCATED, ids=[f"{n}-{p}-{i}" for i, (n, _, p) in enumerate(LOCATED)]
)
def test_what_no_catalogue_knows_is_located(name, body, problem):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake, verdict.problem) == ("wrong", None, problem), verdict


def test_every_exercise_has_a_full_catalogue_and_most_of_it_is_typed_here():
    for exercise in checks.EXERCISES:
        if exercise.lesson == "03":
            typed = {mistake for name, _, mistake in WRONG if name == exercise.name}
            assert len(exercise.mistakes) >= 8 and len(typed) >= 8, exercise.name


# ---- right answers


def linear_loop(T, first=1e-4, last=0.02):
    return torch.tensor([first + (last - first) * t / (T - 1) for t in range(T)])


def linear_numpy(T, first=1e-4, last=0.02):
    return torch.from_numpy(np.linspace(first, last, T))


def linear_lerp(T, first=1e-4, last=0.02):
    return torch.lerp(torch.tensor(first), torch.tensor(last), torch.arange(T) / (T - 1))


def linear_sum(T, first=1e-4, last=0.02):
    steps = torch.full((T,), (last - first) / (T - 1), dtype=torch.float64)
    steps[0] = first
    return steps.cumsum(0)


def linear_backwards(T, first=1e-4, last=0.02):
    return torch.linspace(last, first, T, dtype=torch.float64).flip(0)


class Linear:
    def __call__(self, T, first=1e-4, last=0.02):
        t = np.arange(1, T + 1)
        return torch.as_tensor(first * (T - t) / (T - 1) + last * (t - 1) / (T - 1))


def quadratic_power(T, first=1e-4, last=0.02):
    return torch.linspace(first**0.5, last**0.5, T).pow(2)


def quadratic_loop(T, first=1e-4, last=0.02):
    a, b = math.sqrt(first), math.sqrt(last)
    return torch.tensor([(a + (b - a) * i / (T - 1)) ** 2 for i in range(T)], dtype=torch.float64)


def quadratic_expanded(T, first=1e-4, last=0.02):
    u = torch.arange(T, dtype=torch.float64) / (T - 1)
    return (1 - u) ** 2 * first + 2 * u * (1 - u) * (first * last) ** 0.5 + u**2 * last


def quadratic_numpy(T, first=1e-4, last=0.02):
    root = np.linspace(np.sqrt(first), np.sqrt(last), T)
    return torch.tensor(root * root)


def quadratic_matrix(T, first=1e-4, last=0.02):
    weights = torch.stack([torch.linspace(1, 0, T), torch.linspace(0, 1, T)], dim=1)
    return einops.reduce(weights * torch.tensor([first, last]).sqrt(), "t two -> t", "sum").square()


def cosine_function(T, s=0.008):
    def f(t):
        return math.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2

    return torch.tensor([f(t) / f(0) for t in range(T + 1)])


def cosine_double_angle(T, s=0.008):
    angle = (torch.linspace(0, 1, T + 1, dtype=torch.float64) + s) / (1 + s) * torch.pi
    return (1 + angle.cos()) / (1 + angle[0].cos())


def cosine_sine(T, s=0.008):
    rest = 1 - (torch.arange(T + 1).double() / T + s) / (1 + s)
    f = torch.sin(rest * math.pi / 2) ** 2
    return f / f.max()


def cosine_numpy(T, s=0.008):
    f = np.cos(np.linspace(s, 1 + s, T + 1) / (1 + s) * np.pi / 2)
    return torch.from_numpy((f / f[0]) ** 2)


def cosine_products(T, s=0.008):
    f = torch.cos((torch.arange(T + 1).double() / T + s) / (1 + s) * math.pi / 2) ** 2
    return torch.cat([torch.ones(1), (f[1:] / f[:-1]).cumprod(0)])


def betas_minimum(alpha_bars, largest=0.999):
    return torch.minimum(1 - alpha_bars[1:] / alpha_bars[:-1], torch.tensor(largest, dtype=alpha_bars.dtype))


def betas_loop(alpha_bars, largest=0.999):
    a = alpha_bars.tolist()
    return torch.tensor([min(1 - now / before, largest) for before, now in zip(a, a[1:], strict=False)])


def betas_difference(alpha_bars, largest=0.999):
    lost = -torch.diff(alpha_bars) / alpha_bars[:-1]
    return lost.where(lost < largest, torch.full_like(lost, largest))


def betas_from_below(alpha_bars, largest=0.999):
    return 1 - (alpha_bars[1:] / alpha_bars[:-1]).clamp(min=1 - largest)


def betas_unfold(alpha_bars, largest=0.999):
    before, now = alpha_bars.unfold(0, 2, 1).unbind(1)
    return torch.from_numpy(np.clip((1 - now / before).numpy(), None, largest))


def betas_logarithms(alpha_bars, largest=0.999):
    return -torch.expm1(alpha_bars.log().diff()).clamp(min=-largest)


def bits_math(alpha_bar_T, mean_square):
    return (alpha_bar_T * mean_square - alpha_bar_T - math.log(1 - alpha_bar_T)) / (2 * math.log(2))


def bits_torch(alpha_bar_T, mean_square):
    variance = 1 - alpha_bar_T
    return 0.5 * (alpha_bar_T * mean_square + variance - 1 - variance.log()) / torch.log(torch.tensor(2.0))


def bits_library(alpha_bar_T, mean_square):
    q = torch.distributions.Normal((alpha_bar_T * mean_square) ** 0.5, (1 - alpha_bar_T) ** 0.5)
    nats = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    return nats.item() / np.log(2)


def bits_log2(alpha_bar_T, mean_square):
    a = float(alpha_bar_T)
    return a * (mean_square - 1) / math.log(4) - math.log2(1 - a) / 2


def bits_integral(alpha_bar_T, mean_square):
    mean, var = math.sqrt(alpha_bar_T * mean_square), 1 - float(alpha_bar_T)
    x = torch.linspace(-14, 14, 200_001, dtype=torch.float64)
    log_q = -((x - mean) ** 2) / (2 * var) - 0.5 * math.log(2 * math.pi * var)
    log_p = -(x**2) / 2 - 0.5 * math.log(2 * math.pi)
    return (log_q.exp() * (log_q - log_p)).sum() * (28 / 200_000) / math.log(2)


def rescaled_ends(T):
    return torch.linspace(0.1 / T, 20 / T, T).clamp(max=0.999)


def rescaled_loop(T):
    scale = 1000 / T
    return torch.tensor([min(0.999, scale * (1e-4 + (0.02 - 1e-4) * i / (T - 1))) for i in range(T)])


def rescaled_numpy(T):
    return torch.from_numpy(np.minimum(np.linspace(1e-4, 0.02, T) * 1000 / T, 0.999))


def rescaled_where(T):
    betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64) / (T / 1000)
    betas[betas > 0.999] = 0.999
    return betas


def rescaled_minimum(T):
    betas = (1e-4 + (0.02 - 1e-4) * torch.arange(T).double() / (T - 1)).mul(1000).div(T)
    return torch.minimum(betas, torch.full((T,), 0.999).double())


def design_straight(T):
    return torch.cat([torch.ones(1), torch.linspace(9.5, -9.5, T, dtype=torch.float64).sigmoid()])


def design_single_precision(T):
    return torch.cat([torch.ones(1), torch.sigmoid(torch.linspace(10, -10, T))])


def design_tanh(T):
    x = torch.tensor([math.tanh((9 - 19 * i / (T - 1)) / 2) for i in range(T)], dtype=torch.float64)
    return torch.cat([x.new_ones(1), (1 + x) / 2])


def design_numpy_logistic(T):
    levels = np.exp(np.linspace(-9, 9.8, T))
    return torch.from_numpy(np.concatenate([[1.0], 1 / (1 + levels)]))


def design_from_betas(T):
    alpha_bar = torch.linspace(9, -10, T, dtype=torch.float64).sigmoid()
    kept = alpha_bar / torch.cat([torch.ones(1), alpha_bar[:-1]])
    return torch.cat([torch.ones(1), torch.cumprod(kept, 0)])


def design_bent(T):
    u = torch.linspace(0, 1, T, dtype=torch.float64)
    u = u + 0.2 * torch.sin(2 * math.pi * u) / (2 * math.pi)
    return torch.cat([torch.ones(1), (9.5 - 19 * u).sigmoid()])


RIGHT = {
    "linear_betas": [linear_loop, linear_numpy, linear_lerp, linear_sum, linear_backwards, Linear],
    "quadratic_betas": [quadratic_power, quadratic_loop, quadratic_expanded, quadratic_numpy, quadratic_matrix],
    "cosine_alpha_bars": [cosine_function, cosine_double_angle, cosine_sine, cosine_numpy, cosine_products],
    "betas_from_alpha_bars": [
        *(betas_minimum, betas_loop, betas_difference, betas_from_below, betas_unfold, betas_logarithms),
    ],
    "prior_bits": [bits_math, bits_torch, bits_library, bits_log2, bits_integral],
    "rescaled_betas": [rescaled_ends, rescaled_loop, rescaled_numpy, rescaled_where, rescaled_minimum],
    "my_alpha_bars": [
        *(design_straight, design_single_precision, design_tanh, design_numpy_logistic, design_from_betas, design_bent),
    ],
}


@pytest.mark.parametrize(
    ("name", "function"), [(n, f) for n, fs in RIGHT.items() for f in fs], ids=lambda v: getattr(v, "__name__", v)
)
def test_right_answers_are_accepted(name, function):
    verdict = getattr(checks, name).check(function() if isinstance(function, type) else function)
    assert verdict.solved, verdict.text


# ---- 3.7


def test_a_design_is_told_both_of_its_scores():
    solved = checks.my_alpha_bars.check(design_straight)
    assert "L_T is 5.4e-05" in solved.text[1] and "D is 0.025" in solved.text[1]
    uneven = judge("my_alpha_bars", TABLE.format(9, -30))
    assert any("the unevenness D" in line for line in uneven.text)


def test_the_package_standing_in_is_never_solved():
    verdict = checks.my_alpha_bars.check(checks.my_alpha_bars.reference)
    assert (verdict.status, verdict.mistake) == ("package", None)
    assert judge("my_alpha_bars", "raise NotImplementedError").status == "not attempted"


def test_unevenness_is_the_largest_gap_between_shares():
    """Against a brute-force search over a fine grid of log-SNR."""
    for values in ([9.0, 3.0, -1.0, -9.5], [30.0, 2.0, 1.9, 1.8, -40.0], [12.0, 11.0], [-3.0]):
        log_snr = torch.tensor(values, dtype=torch.float64)
        table = torch.cat([torch.ones(1), log_snr.sigmoid()])
        grid = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
        share = (log_snr[:, None] <= grid).double().mean(0)
        gap = (share - (grid + 10) / 20).abs().max()
        assert abs(lesson03.unevenness(table) - gap) < 2e-4, values
