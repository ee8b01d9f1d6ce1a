"""Probes of samples, beside the images: those that were made elsewhere, and a short sampling of our own (lesson 13)."""

import torch
from torch import Tensor

from ..metrics import nearest_neighbours
from ..pixels import to_unit_range
from .findings import UnjudgedError, Verdict, probe
from .patient import Patient

MOST = 512  # samples and images that are compared


@probe(
    "a short sampling",
    measures="mean and spread of the estimates along 20 steps of DDIM",
    sound="mean and spread of the data",
    lesson="lesson 06, 'What happens on the way'",
)
def sampling(patient: Patient) -> Verdict:
    steps, images = patient.sampling(), patient.images.float()
    last = steps[-1].x.float().cpu()
    if not bool(last.isfinite().all()):
        return "x becomes NaN or infinite", "The network's answers explode along the way: look at its error by t."
    trail = ", ".join(f"{step.x0.mean():+.2f} ± {step.x0.std():.2f}" for step in steps[:: max(1, len(steps) // 4)])
    value = f"estimates of x_0 are {trail}; the data {images.mean():+.2f} ± {images.std():.2f}"
    shift, chance, spread = levels(last, images)
    if shift > 0.3 + chance or not 0.6 < spread < 1.5:
        return value, (
            "Every answer is a little wrong in the same direction, and that adds up in sampling: an error at large t "
            "decides brightness and contrast. Were t near T ever drawn in training?"
        )
    off = tint(last, images) if patient.pictures else torch.zeros(1)
    if float(off.abs().max() / images.std()) > 0.3:
        return f"{value}; a channel is {off.abs().max():.2f} off", (
            "All samples share a tint: channels are swapped or mixed, or large t has learnt too little."
        )
    return value, None


def levels(samples: Tensor, images: Tensor) -> tuple[float, float, float]:
    """How far the mean is off, and how far that of so few may be by chance, both in the images' standard deviations;
    and the spread as a multiple of the images'."""
    std, means = images.std(), images.flatten(1).mean(1)
    shift, chance = (samples.mean() - images.mean()).abs() / std, 4 * means.std() / std / len(samples) ** 0.5
    return float(shift), float(chance), float(samples.std() / std)


def tint(samples: Tensor, images: Tensor) -> Tensor:
    """(C,) how far the channels' means are off, brightness aside."""
    ours, theirs = (x.mean((0, 2, 3)) - x.mean() for x in (samples, images))
    return ours - theirs


def made(patient: Patient) -> Tensor:
    """(M, ...) the samples as floats."""
    samples = patient.need("samples")
    return (samples if samples.is_floating_point() else to_unit_range(samples.to(torch.uint8))).float()[:MOST]


def some_images(patient: Patient) -> Tensor:
    rows = torch.linspace(0, len(patient.images) - 1, min(MOST, len(patient.images))).round().long()
    return patient.images[rows].float()


@probe(
    "range of the samples",
    measures="lowest and highest value of the samples",
    sound="those of the images, or little outside",
    lesson="lesson 06, 'Clipping'",
)
def samples_range(patient: Patient) -> Verdict:
    samples, images = made(patient), patient.images.float()
    if not bool(samples.isfinite().all()):
        return "some are NaN or infinite", (
            "A division by sqrt(alpha_bar) that is 0, the log of a variance that is 0, or the index of a table that is "
            "one too far."
        )
    low, high, outside = float(samples.min()), float(samples.max()), float((samples.abs() > 1.3).float().mean())
    value = f"from {low:.3g} to {high:.3g}, the images from {images.min():.3g} to {images.max():.3g}"
    if patient.samples.is_floating_point() and low >= 0:
        if high > 2.5:
            return value, "The samples are 0…255 and the images -1…1: put both on one scale."
        if high <= 1.01 and images.min() < -0.5:
            return value, "The samples were scaled to [0, 1] for showing (hand in the sampler's own), or clipped to it."
    if outside > 0.02:
        return f"{value}; {outside:.0%} far outside", (
            "x left the data's range: x_0 was divided by alpha_bar or alpha in place of its root, a coefficient of "
            "the step is wrong, steps are taken in the wrong direction, or the loop stopped while there was much noise."
        )
    return value, None


@probe(
    "noise in the samples",
    measures="second differences of neighbouring pixels",
    sound="about those of the images",
    lesson="lesson 06, 'The last step'",
)
def samples_noise(patient: Patient) -> Verdict:
    samples, images = made(patient), some_images(patient)
    if patient.pictures:
        ours, theirs = roughness(samples), roughness(images)
        value = f"neighbouring pixels disagree by {ours:.3f}, in the images by {theirs:.3f}"
        noisy = ours > 1.4 * theirs + 0.03
    elif samples[0].numel() <= 64 and len(samples) >= 32:
        some, others = images.flatten(1).tensor_split(2)
        ours, theirs = (float(nearest_neighbours(x, some)[0].mean()) for x in (samples.flatten(1), others))
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


def roughness(x: Tensor) -> float:
    """The median of second differences around a pixel: 0 in flat places, and 0.67 x 2 x std for added noise."""
    return float(x.diff(dim=-1).diff(dim=-2).abs().flatten(1).median(1).values.mean())


@probe(
    "variety of the samples",
    measures="distances between samples and between images",
    sound="more than 45 % of the images'",
    lesson="lesson 08, 'Precision and recall'",
)
def samples_alike(patient: Patient) -> Verdict:
    samples, images = made(patient), some_images(patient)
    ours, theirs = (torch.pdist(x.flatten(1)) for x in (samples, images))
    ratio = float(ours.mean() / theirs.mean().clamp(min=1e-9))
    same = float((ours < 0.02 * theirs.mean()).float().mean()) if samples[0].numel() > 16 else 0.0
    value = f"two of them are {ratio:.0%} as far apart as two images, {same:.0%} of the pairs are the same"
    if ratio < 0.45 or same > 0.02:
        return value, (
            "All alike: every item got the same noise (a generator seeded in the loop, noise of shape (1, ...)), "
            "no noise is added in the steps, guidance is too strong, or the training set is tiny."
        )
    return value, None


@probe(
    "brightness of the samples",
    measures="mean and spread of the samples",
    sound="mean and spread of the images",
    lesson="lesson 06, 'A gallery of broken samplers'",
)
def samples_level(patient: Patient) -> Verdict:
    samples, images = made(patient), patient.images.float()
    shift, chance, spread = levels(samples, images)
    value = f"{samples.mean():+.2f} ± {samples.std():.2f}, the images {images.mean():+.2f} ± {images.std():.2f}"
    if shift > 0.35 + chance or not 0.65 < spread < 1.35:
        return value, (
            "Too grey, bright or dark: the start was not N(0, I), alpha_bar_T leaves signal, the estimates were "
            "scaled or not clipped, guidance is too strong, or [0, 1] was taken for [-1, 1]."
        )
    return value, None


@probe(
    "tint of the samples",
    measures="the mean of every channel",
    sound="that of the images",
    lesson="lesson 07, 'Colour'",
)
def samples_tint(patient: Patient) -> Verdict:
    samples, images = made(patient), patient.images.float()
    if not patient.pictures or images.shape[1] == 1:
        raise UnjudgedError("the data has no colours")
    off = tint(samples, images)
    value = "channels are off by " + ", ".join(f"{c:+.2f}" for c in off.tolist())
    if float(off.abs().max() / images.std()) > 0.25:
        return value, "A common tint: channels are in another order (BGR), mixed, or scaled one by one."
    return value, None


@probe(
    "detail of the samples",
    measures="the energy of edges",
    sound="50 to 200 % of the images'",
    lesson="lesson 06, 'Which variance'",
)
def samples_detail(patient: Patient) -> Verdict:
    samples, images = made(patient), some_images(patient)
    if not patient.pictures:
        raise UnjudgedError("the data isn't made of pictures")
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


def steepness(x: Tensor) -> float:
    return float(x.diff(dim=-1).square().mean() + x.diff(dim=-2).square().mean())


@probe(
    "copies of training images",
    measures="each sample's distance to the nearest training image",
    sound="few much nearer than images are",
    lesson="lesson 08, 'The nearest training image'",
)
def samples_copies(patient: Patient) -> Verdict:
    samples, images = made(patient), patient.images.float()
    if images[0].numel() < 64 or len(images) < 32:
        raise UnjudgedError("there are too few numbers or too few images to tell copies")
    near = nearest_neighbours(samples.flatten(1), images.flatten(1))[0][:, 0]
    usual = nearest_neighbours(some_images(patient)[:128].flatten(1), images.flatten(1), 2)[0][:, 1].median()
    share = float((near < 0.25 * usual).float().mean())
    value = f"{share:.0%} lie much nearer to a training image than training images lie to each other"
    if share > 0.2:
        return value, "The network knows its images by heart: too few for so many steps. Or these are no samples."
    return value, None
