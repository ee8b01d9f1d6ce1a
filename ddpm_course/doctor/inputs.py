"""Probes of what a model is made from: the data and the schedule. They need no network call (lesson 13)."""

from ..bound import prior_bits
from .findings import probe
from .patient import Patient


@probe(
    "range of the data",
    measures="the type, lowest and highest value of the images",
    sound="floats in [-1, 1], or uint8 0…255",
    lesson="lesson 01, 'To and from [−1, 1]'",
)
def data_range(patient: Patient) -> tuple[str, str | None]:
    given = patient.given
    if not bool(given.isfinite().all()):
        return "some values are NaN or infinite", "A division by 0 or a damaged file: clean the data before training."
    low, high = float(given.min()), float(given.max())
    value = f"{given.dtype}".removeprefix("torch.") + f" from {low:.3g} to {high:.3g}"
    if not given.is_floating_point():
        if high <= 1 and low >= 0:
            return value, (
                "Floats in [0, 1] were cast to integers, which leaves 0 and 1 only. Keep the floats, or scale to 0…255."
            )
        wrong = "Integers outside 0…255 aren't pixel values." if low < 0 or high > 255 else None
        return value, wrong
    distinct = len(given.flatten()[:200_000].unique())
    if distinct <= 3:
        return f"{value}, only {distinct} different values", (
            "The pixels were divided as integers (// or a uint8 that stayed one). Convert with x.float() / 127.5 - 1."
        )
    if high > 2.5 and low >= 0:
        return value, "The pixels are still 0…255. The network and the noise expect [-1, 1]: x.float() / 127.5 - 1."
    if high - low < 0.5:
        return value, "The data was scaled twice, for instance by 255 after it was in [0, 1]. Noise drowns it at once."
    if low >= -0.01:
        return value, (
            "The data is in [0, 1]: off-centre and half as wide as the sampler's range. Samples come out washed out, "
            "as clipping is to [-1, 1]. Use 2 x - 1."
        )
    if high <= 0.55 and low >= -0.55:
        return value, "The data is in [-0.5, 0.5]: half as wide as the sampler's range. Use x / 127.5 - 1."
    outside = float((given.abs() > 1.1).float().mean())
    if outside > 0.005:
        return f"{value}, {outside:.0%} of it outside [-1, 1]", (
            "The data was standardised (x - mean) / std or not scaled at all. The sampler clips to [-1, 1] and cuts "
            "that off: use x / 127.5 - 1, or sample without clipping."
        )
    return value, None


@probe(
    "tables of the schedule",
    measures="alpha_bar against the product of 1 - beta, in float64",
    sound="alpha_bar_0 = 1, falling at every step",
    lesson="lesson 02, 'The closed form'",
)
def tables(patient: Patient) -> tuple[str, str | None]:
    schedule = patient.schedule
    level, beta = schedule.alpha_bar.double(), schedule.beta.double()
    if level.shape != (schedule.T + 1,) or beta.shape != level.shape:
        return f"alpha_bar has {len(level)} entries for T={schedule.T}", (
            "Tables have T + 1 entries, one for t = 0, which is clean data. One is missing or padded."
        )
    if not bool(level.isfinite().all()) or float(level.min()) < 0 or float(level.max()) > 1:
        return f"alpha_bar from {float(level.min()):.3g} to {float(level.max()):.3g}", (
            "alpha_bar is a share of the variance, so it lies in [0, 1]. A sum stands where the product belongs?"
        )
    if abs(float(level[0]) - 1) > 1e-6:
        return f"alpha_bar_0 = {float(level[0]):.4g}", (
            "Entry 0 stands for clean data and must be 1. The table starts with the first step, so every t is one off."
        )
    equal = int((level.diff() >= 0).sum())
    if equal:
        return f"alpha_bar does not fall at {equal} of {schedule.T} steps", (
            "The table was made or kept in half precision, where neighbours near 1 round to the same number, or it is "
            "not the cumulative product of 1 - beta. Compute it in float64 and cast at the end."
        )
    inside = level > 0
    product = (1 - beta).cumprod(0)
    gap = float((level[inside].log() - product[inside].clamp(min=1e-300).log()).abs().max())
    if gap > 0.01:
        return f"alpha_bar differs from the product of 1 - beta by a factor of up to {min(gap, 300):.2g} in log", (
            "The closed form and the steps of the chain don't belong together: alpha_bar is the cumulative product "
            "of 1 - beta, in float64."
        )
    return f"alpha_bar falls from 1 to {float(level[-1]):.2g}, the product of 1 - beta", None


@probe(
    "order of beta",
    measures="beta at both ends",
    sound="beta grows with t, or stays",
    lesson="lesson 03, 'What a schedule decides'",
)
def order(patient: Patient) -> tuple[str, str | None]:
    beta = patient.schedule.beta.double()
    first, last = float(beta[1]), float(beta[-1])
    value = f"beta_1 = {first:.2g}, beta_T = {last:.2g}"
    if last < first / 1.5:
        return value, (
            "The schedule runs backwards: its large steps come first, where detail is lost at once, and the last ones "
            "do next to nothing. Flip beta."
        )
    return value, None


@probe(
    "first step",
    measures="the noise that the first step adds",
    sound="below 0.3",
    lesson="lesson 03, 'What a schedule decides'",
)
def first_step(patient: Patient) -> tuple[str, str | None]:
    sigma = float((1 - patient.schedule.alpha_bar[1].double()).clamp(min=0).sqrt())
    value = f"the noise at t = 1 has standard deviation {sigma:.2g}"
    if sigma > 0.3:
        return value, (
            "The first step already hides detail, which the last reverse step cannot bring back; T is too small, or "
            "beta does not start near 0 (for the cosine schedule, f(t) / f(0) was shifted)."
        )
    return value, None


@probe(
    "signal left at T",
    measures="what is left of x_0 at T",
    sound="alpha_bar_T below 0.006",
    lesson="lesson 03, 'T and β belong together'",
)
def signal_at_T(patient: Patient) -> tuple[str, str | None]:
    level = float(patient.schedule.alpha_bar[-1])
    bits = float(prior_bits(patient.diffusion, patient.x0.float()).double().mean())
    value = f"alpha_bar_T = {level:.2g}, L_T = {bits:.2g} bits per dimension"
    if level > 0.006:
        return value, (
            "Training never shows pure noise, but sampling starts from it, so samples keep a mean of their own: grey, "
            "or too bright. The beta of T = 1000 with a smaller T does this: multiply beta by 1000 / T."
        )
    return value, None
