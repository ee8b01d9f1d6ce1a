"""Probes of what came out: samples that were made elsewhere, and the losses of the training (lesson 13)."""

import torch
from torch import Tensor

from ..metrics import nearest_neighbours
from ..pixels import to_unit_range
from .findings import Probe, UnjudgedError
from .inputs import END, FIRST, RANGE, TABLES
from .network import NETWORK, SAMPLING, SOUND_NET
from .patient import Patient, linear_error

S_RANGE, S_NOISE, S_DETAIL, S_LEVEL, S_TINT, S_ALIKE, S_COPIES = (
    "range of the samples", "noise in the samples", "detail of the samples", "brightness of the samples",
    "tint of the samples", "variety of the samples", "copies of training images",
)  # fmt: skip
L_FINITE, L_LEVEL, L_JUMPS, L_FIT = "losses", "level of the loss", "jumps of the loss", "loss against the network"
MOST = 512  # samples and images that are compared


def made(patient: Patient) -> Tensor:
    """(M, ...) the samples as floats."""
    if patient.samples is None:
        raise UnjudgedError("no samples were given")
    samples = patient.samples
    return (samples if samples.is_floating_point() else to_unit_range(samples.to(torch.uint8))).float()[:MOST]


def some_images(patient: Patient) -> Tensor:
    rows = torch.linspace(0, len(patient.images) - 1, min(MOST, len(patient.images))).round().long()
    return patient.images[rows].float()


def samples_range(patient: Patient) -> tuple[str, str | None]:
    samples = made(patient)
    if not bool(samples.isfinite().all()):
        return "some are NaN or infinite", (
            "A division by sqrt(alpha_bar) that is 0, the log of a variance that is 0, or the index of a table that is "
            "one too far."
        )
    images = patient.images.float()
    low, high, outside = float(samples.min()), float(samples.max()), float((samples.abs() > 1.3).float().mean())
    value = f"from {low:.3g} to {high:.3g}, the images from {float(images.min()):.3g} to {float(images.max()):.3g}"
    if patient.samples.is_floating_point():
        if low >= 0 and high > 2.5:
            return value, "The samples are 0…255 and the images -1…1: compare the same kind."
        if low >= 0 and high <= 1.01 and float(images.min()) < -0.5:
            return value, "The samples were turned into [0, 1] for showing: hand them in as the sampler made them."
    if outside > 0.02:
        return f"{value}; {outside:.0%} far outside", (
            "x left the data's range: x_0 was divided by alpha_bar or alpha in place of its root, a coefficient of "
            "the step is wrong, steps are taken in the wrong direction, or the loop stopped while there was much noise."
        )
    return value, None


def roughness(x: Tensor) -> float:
    """The median of second differences around a pixel: 0 in flat places, and 0.67 x 2 x std for added noise."""
    second = x[..., 1:, 1:] - x[..., :-1, 1:] - x[..., 1:, :-1] + x[..., :-1, :-1]
    return float(second.abs().flatten(1).median(1).values.mean())


def samples_noise(patient: Patient) -> tuple[str, str | None]:
    samples, images = made(patient), some_images(patient)
    if patient.pictures:
        ours, theirs = roughness(samples), roughness(images)
        value = f"neighbouring pixels disagree by {ours:.3f}, in the images by {theirs:.3f}"
        noisy = ours > 1.4 * theirs + 0.03
    elif samples[0].numel() <= 64 and len(samples) >= 32:
        half = len(images) // 2
        ours = float(nearest_neighbours(samples.flatten(1), images[:half].flatten(1))[0].mean())
        theirs = float(nearest_neighbours(images[half:].flatten(1), images[:half].flatten(1))[0].mean())
        value = f"the nearest item of the data is {ours:.3f} away, for other data {theirs:.3f}"
        noisy = ours > 2 * theirs + 0.005
    else:
        raise UnjudgedError("the samples are too few, or neither pictures nor points")
    if noisy:
        return value, (
            "Noise is left: the last step added some, the loop ended before t = 0 (its last pair ends at alpha_bar_1, "
            "not at 1), or values outside 0…255 wrapped around because they weren't clamped before uint8."
        )
    return value, None


def steepness(x: Tensor) -> float:
    x = x.float()
    return float(x.diff(dim=-1).square().mean() + x.diff(dim=-2).square().mean())


def samples_detail(patient: Patient) -> tuple[str, str | None]:
    samples, images = made(patient), some_images(patient)
    if not patient.pictures:
        raise UnjudgedError("the data are no pictures")
    ratio = steepness(samples) / max(steepness(images), 1e-9)
    value = f"edges have {ratio:.0%} of the energy of the images'"
    if ratio < 0.5:
        return value, (
            "The samples are blurred, towards the mean of all images: no noise is added in the steps, x_0 is taken "
            "from one step, or the loss was L1 or averaged over answers."
        )
    if ratio > 2:
        return value, (
            "Single pixels stand out: values outside 0…255 wrapped around because they weren't clamped before uint8, "
            "or guidance is far too strong."
        )
    return value, None


def samples_level(patient: Patient) -> tuple[str, str | None]:
    samples, images = made(patient), patient.images.float()
    std, means = float(images.std()), images.flatten(1).mean(1)
    shift, spread = float(samples.mean() - images.mean()) / std, float(samples.std()) / std
    value = (
        f"{float(samples.mean()):+.2f} ± {float(samples.std()):.2f}, the images {float(images.mean()):+.2f} ± {std:.2f}"
    )
    if abs(shift) > 0.35 + 4 * float(means.std()) / std / len(samples) ** 0.5 or not 0.65 < spread < 1.35:
        return value, (
            "Too grey, bright or dark: the start was not N(0, I), alpha_bar_T leaves signal, the estimates were "
            "scaled or not clipped, guidance is too strong, or [0, 1] was taken for [-1, 1]."
        )
    return value, None


def samples_tint(patient: Patient) -> tuple[str, str | None]:
    samples, images = made(patient), patient.images.float()
    if not patient.pictures or images.shape[1] == 1:
        raise UnjudgedError("the data have no colours")
    off = (samples.mean((0, 2, 3)) - samples.mean()) - (images.mean((0, 2, 3)) - images.mean())
    value = "channels are off by " + ", ".join(f"{float(c):+.2f}" for c in off)
    if float(off.abs().max() / images.std()) > 0.25:
        return value, "A common tint: channels are in another order (BGR), mixed, or scaled one by one."
    return value, None


def samples_alike(patient: Patient) -> tuple[str, str | None]:
    samples, images = made(patient), some_images(patient)
    a, b = torch.pdist(samples.flatten(1)), torch.pdist(images.flatten(1))
    ratio = float(a.mean() / b.mean().clamp(min=1e-9))
    same = float((a < 0.02 * b.mean()).float().mean()) if samples[0].numel() > 16 else 0.0
    value = f"two of them are {ratio:.0%} as far apart as two images, {same:.0%} of the pairs are the same"
    if ratio < 0.45 or same > 0.02:
        return value, (
            "All alike: every item got the same noise (a generator seeded in the loop, noise of shape (1, ...)), "
            "no noise is added in the steps, guidance is too strong, or the training set is tiny."
        )
    return value, None


def samples_copies(patient: Patient) -> tuple[str, str | None]:
    samples, images = made(patient), patient.images.float()
    if images[0].numel() < 64 or len(images) < 32:
        raise UnjudgedError("copies can't be told in so few numbers or among so few images")
    near = nearest_neighbours(samples.flatten(1), images.flatten(1))[0][:, 0]
    usual = nearest_neighbours(some_images(patient)[:128].flatten(1), images.flatten(1), 2)[0][:, 1].median()
    share = float((near < 0.25 * usual).float().mean())
    value = f"{share:.0%} lie much nearer to a training image than training images lie to each other"
    if share > 0.2:
        return (
            value,
            "The network knows its training images by heart: too few for so many steps. Or these are no samples.",
        )
    return value, None


def run_losses(patient: Patient) -> Tensor:
    if patient.losses is None:
        raise UnjudgedError("no losses were given")
    return patient.losses


def losses_finite(patient: Patient) -> tuple[str, str | None]:
    losses = run_losses(patient)
    bad = (~losses.isfinite()).nonzero().flatten()
    if len(bad):
        return f"entry {int(bad[0])} of {len(losses)} is not finite", (
            "The learning rate is too high, float16 overflowed without loss scaling, or a weight 1 / (1 - alpha_bar_0) "
            "was used at t = 0. What comes after is lost: go back to weights from before."
        )
    if bool((losses < 0).any()):
        return "some are negative", "A squared error is never negative: a sign is turned, as in the bound itself."
    return f"{len(losses)} finite numbers", None


def tail(losses: Tensor) -> float:
    if len(losses) < 10:
        raise UnjudgedError(f"only {len(losses)} losses were given, and 10 are needed")
    return float(losses[-max(3, len(losses) // 10) :].mean())


def _over_t(patient: Patient, answered: bool) -> tuple[float, float, float]:
    """The mean squared error of the target over all t: of answering 0, of a linear filter, of this network."""
    T, variances = patient.schedule.T, patient.power()
    times = sorted({max(1, round(T * (i + 0.5) / 10)) for i in range(10)})
    zero = linear = net = 0.0
    for t in times:
        wanted, level = patient.target(t), float(patient.schedule.alpha_bar[t])
        scale = {"noise": level / (1 - level), "x0": 1.0, "v": 1 / (1 - level)}[patient.diffusion.predicts]
        zero += float(wanted.square().mean()) / len(times)
        linear += scale * (1 - level) * linear_error(variances, level) / len(times)
        if answered:
            net += float((patient.answer(t) - wanted).square().mean()) / len(times)
    return zero, linear, net


def losses_level(patient: Patient) -> tuple[str, str | None]:
    end = tail(run_losses(patient))
    zero, linear, _ = _over_t(patient, False)
    value = f"it ends at {end:.3g}; answering 0 costs {zero:.2g}, a linear filter {linear:.2g}"
    if end > 1.6 * zero:
        return value, (
            "Worse than saying nothing: the squares are summed where their mean belongs, the training diverged, or "
            "the target has another scale."
        )
    if end > 0.75 * zero and end > 1.2 * linear:
        return value, (
            "No better than saying nothing: the loss compares with a noise that is not in x_t (drawn again), the "
            "learning rate is far too small or 0, or gradients are cleared before the step."
        )
    return value, None


def losses_jumps(patient: Patient) -> tuple[str, str | None]:
    losses = run_losses(patient)
    if len(losses) < 20:
        raise UnjudgedError(f"only {len(losses)} losses were given, and 20 are needed")
    pieces = torch.stack([piece.mean() for piece in losses.tensor_split(min(40, len(losses) // 5 * 2))])
    best = pieces.cummin(0).values
    ratio = (pieces[1:] / best[:-1]).max()
    value = f"it rises to at most {float(ratio):.2g} times the least so far"
    if float(ratio) > 1.8:
        return value, (
            "The training jumps or turns around: the learning rate is too high, no warmup, no clipping of gradients, "
            "a resumed run without its optimizer's state, or bad images in some batches."
        )
    return value, None


def losses_fit(patient: Patient) -> tuple[str, str | None]:
    end = tail(run_losses(patient))
    *_, net = _over_t(patient, True)
    value = f"the training ends at {end:.3g}, this network has {net:.3g} on these images"
    if net > 2.5 * end + 0.01:
        return value, (
            "This is not the network that was trained, or not its data: an average of weights that still holds the "
            "random ones, weights that were not loaded, other images. Or the training saw only easy t (one t for all, "
            "a wrong weight), or its loss is not the mean over t of the squared error."
        )
    if end > 2.5 * net + 0.01:
        return value, (
            "The losses are not on the scale of this network's squared error: a sum or another weight stands for the "
            "mean, or they are of an earlier run."
        )
    return value, None


BROKEN = tuple(dict.fromkeys((*NETWORK, SAMPLING, FIRST)))
PROBES = (
    Probe(S_RANGE, "lowest and highest value of the samples", "those of the images, or little outside",
          "lesson 06, 'Clipping'", samples_range, BROKEN),
    Probe(S_NOISE, "second differences of neighbouring pixels", "about those of the images",
          "lesson 06, 'The last step'", samples_noise, (*BROKEN, S_RANGE)),
    Probe(S_ALIKE, "distances between samples and between images", "more than 45 % of the images'",
          "lesson 08, 'Precision and recall'", samples_alike, (*BROKEN, S_RANGE)),
    Probe(S_LEVEL, "mean and spread of the samples", "mean and spread of the images",
          "lesson 06, 'A gallery of broken samplers'", samples_level, (*BROKEN, END, S_RANGE, S_NOISE, S_ALIKE)),
    Probe(S_TINT, "the mean of every channel", "that of the images", "lesson 07, 'Colour'", samples_tint,
          (*BROKEN, S_RANGE, S_ALIKE)),
    Probe(S_DETAIL, "the energy of edges", "50 to 200 % of the images'", "lesson 06, 'Which variance'",
          samples_detail, (*BROKEN, S_RANGE, S_NOISE, S_ALIKE, S_LEVEL)),
    Probe(S_COPIES, "each sample's distance to the nearest training image", "few much nearer than images are",
          "lesson 08, 'The nearest training image'", samples_copies, (*BROKEN, S_RANGE, S_NOISE)),
    Probe(L_FINITE, "every loss", "finite and not negative", "lesson 07, 'Half precision'", losses_finite),
    Probe(L_JUMPS, "averages over 40 pieces of the training", "falling or level", "lesson 07, 'The learning rate'",
          losses_jumps, (L_FINITE,)),
    Probe(L_LEVEL, "the mean of the last tenth", "well below the loss of answering 0",
          "lesson 05, 'Is my loss converged?'", losses_level, (RANGE, TABLES, L_FINITE, L_JUMPS)),
    Probe(L_FIT, "the last losses against this network's error over all t", "about the same",
          "lesson 05, 'Algorithm 1'", losses_fit,
          (*SOUND_NET, L_FINITE, L_JUMPS, L_LEVEL)),
)  # fmt: skip
