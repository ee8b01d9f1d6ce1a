"""The exercises of lesson 08: bits, Fréchet distances, neighbours, counts, and a precision to repair.

What goes wrong in them is in lesson08.mistakes.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .cases import EIGHT, FIVE, OTHER_EIGHT, TWELVE
from .records import Case
from .written import exercise


def draw(*shape: int, seed: int, kind: Callable = torch.randn) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return kind(*shape, generator=generator, dtype=torch.float64, device="cpu")


def bits_cases() -> list[Case]:
    plan = [((1, 28, 28), 4, None), ((3, 32, 32), 4, None), ((3, 8, 4), 3, None), ((5,), 5, None), ((2, 6), 2, None)]
    plan += [((1, 4, 9), 1, None), ((2, 2, 3, 5), 3, None), ((3, 2, 2), None, None), ((1, 5, 2), None, 0.3)]
    plan += [((1, 28, 28), 3, 2 / 255), ((3, 8, 4), 2, 1 / 256), ((2, 3), 4, 1.7), ((6,), 1, 0.05)]
    cases = []
    for seed, (shape, n, width) in enumerate(plan):
        nats = (draw(n or 1, seed=seed, kind=torch.rand) * 4 + 0.1) * math.prod(shape)
        facts = {
            "for items with more than one channel": len(shape) > 2 and shape[0] > 1,
            "for items that are not square": len(shape) > 1 and shape[-2] != shape[-1],
            "for data that is not images": len(shape) != 3,
            "for one number": n is None,
            "for more than one item": n is not None and n > 1,
            "where a width is given": width is not None,
            "where the width is below 1": width is not None and width < 1,
        }
        label = f"{'one number' if n is None else f'nats of shape ({n},)'}, items of shape {shape}"
        label += f", width {width:.3g}" if width else ""
        given = (nats.item() if n is None else nats, shape, width)
        cases.append(Case(label, given if width else given[:2], facts))
    return cases


@exercise(
    "8.1",
    bits_cases,
    first="leave width at 1 to begin with, and look at the formula above: which two numbers stand below the bar?",
    tolerance=1e-5,
    any_float=True,
)
def bits_per_dimension(nats, shape, width=1.0):
    """Bits per dimension from nats: of probabilities, or of a density over values with levels.

    nats:    (B,) -ln p(x_0) of each whole image, or one number
    shape:   of one image, (C, H, W), or of other data
    width:   1 where p is a probability. Where p is a density: the distance from one level of
             a value to the next. The probability of a level is the density times this width
    returns  bits for each of the image's values, in the shape of nats
    """
    values = math.prod(shape)
    per_value = nats / values
    bit = math.log(2)  # in nats
    bin_width = math.log(width)  # a density's only: 0 for probabilities
    return (per_value - bin_width) / bit


def drop_cases() -> list[Case]:
    plan = [(EIGHT, 5, 4), (EIGHT, 2, 3), (EIGHT, 8, 8), (EIGHT, (2, 8, 5), 3), (EIGHT, (7, 3, 3, 6), 4)]
    plan += [(EIGHT, (4,), 1), (FIVE, 3, 3), (FIVE, (5, 2, 4), 3), (OTHER_EIGHT, 6, 2), (OTHER_EIGHT, (7, 2), 2)]
    plan += [(TWELVE, 12, 3), (TWELVE, (2, 11, 9, 3), 4)]
    cases = []
    for seed, (betas, t, n) in enumerate(plan):
        many = not isinstance(t, int)
        each = torch.tensor(t, device="cpu")
        facts = {
            "where t = 2": each == 2,
            "where t = T": each == len(betas.values),
            "for an int t": not many,
            "for t of shape (B,)": many,
            "where t is more than 8": each > 8,
            "for a schedule with another T": betas in (FIVE, TWELVE),
            "for another schedule of the same T": betas is OTHER_EIGHT,
        }
        value = torch.tensor(t, device="cpu") if many else t
        error = draw(n, seed=seed, kind=torch.rand) + 0.1
        cases.append(Case(f"t = {t if not many else list(t)}, T = {len(betas.values)}", (betas, value, error), facts))
    return cases


@exercise(
    "8.2",
    drop_cases,
    first="read the line for L_{t-1} once more: from which t to which does the SNR drop, and in which unit is it?",
    linear=("error",),
    tolerance=1e-5,
    any_float=True,
)
def step_bits(schedule, t, error):
    """L_{t-1} in bits per dimension, for reverse steps with the variance beta-tilde.

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    t:         an int in 2...T, or (B,) integers
    error:     (B,) mean squared difference of x_0 and its estimate, each image's own
    returns    (B,)
    """
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)  # infinite at t = 0: never read
    weight = (snr[t - 1] - snr[t]) / 2
    nats = weight * error
    return nats / math.log(2)


def gaussian_cases() -> list[Case]:
    def pair(dim: int, seed: int, *, diagonal: bool = False, rank: int | None = None) -> tuple[Tensor, Tensor]:
        if diagonal:
            return draw(dim, seed=seed), (draw(dim, seed=seed + 50, kind=torch.rand) * 3 + 0.2).diag()
        root = draw(dim, rank or dim, seed=seed + 50)
        return draw(dim, seed=seed), root @ root.T + 0.1 * torch.eye(dim, dtype=torch.float64) * (rank is None)

    plan = [
        *((f"D = {dim}", pair(dim, seed), pair(dim, seed + 1)) for dim, seed in ((1, 0), (2, 4), (3, 6), (5, 8))),
        ("D = 2, diagonal covariances", pair(2, 2, diagonal=True), pair(2, 3, diagonal=True)),
        ("D = 4, singular covariances", pair(4, 10, rank=2), pair(4, 11, rank=2)),
    ]
    same = pair(3, 12)
    plan += [("D = 3, equal means", same, (same[0], pair(3, 13)[1]))]
    plan += [("D = 3, equal covariances", same, (pair(3, 14)[0], same[1])), ("D = 3, one and the same", same, same)]
    mean, cov = pair(64, 16, rank=32)
    wide = mean, cov / 64
    plan.append(("D = 64, singular covariances, one and the same", wide, wide))
    cases = []
    for label, (mean1, cov1), (mean2, cov2) in plan:
        apart, equal = bool((mean1 != mean2).any()), torch.equal(cov1, cov2)
        facts = {
            "for covariances that are not diagonal": bool((cov1 - cov1.diag().diag()).any()),
            "for covariances with eigenvalues 0, which rounding can put just below 0": "singular" in label,
            "where the means differ": apart,
            "where the covariances differ": not equal,
            "where the two Gaussians are the same": equal and not apart,
            "in one dimension": len(mean1) == 1,
            "in more than three dimensions": len(mean1) > 3,
            "in digits that float32 does not hold": mean1 is wide[0],
        }
        cases.append(Case(label, (mean1, cov1, mean2, cov2), facts, gpu=mean1 is wide[0]))
    return cases


@exercise(
    "8.3",
    gaussian_cases,
    first="begin in one dimension, where it is (m1 - m2)² + (σ1 - σ2)². What is σ1 σ2 made of C1 and C2?",
    tolerance=1e-4,
)
def frechet_of_gaussians(mean1, cov1, mean2, cov2):
    """The squared Frechet distance of N(mean1, cov1) and N(mean2, cov2).

    mean1, mean2:  (D,) float64
    cov1, cov2:    (D, D) float64, symmetric. No eigenvalue is negative, but some may be 0, and
                   rounding may make them -1e-17
    returns        a number: a float, or a tensor of shape ()
    """
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    means = (mean1 - mean2).square().sum()
    covs = cov1.trace() + cov2.trace() - 2 * cross
    return float(means + covs)


def limit_cases() -> list[Case]:
    plan = [(100, 200, 400, 800), (100, 150, 250, 400, 650, 1000), (80, 90, 1000), (500, 1000, 2000), (64, 128)]
    plan += [(400, 100, 1000, 150), (90, 130, 310, 2000, 70), (110, 240, 700)]
    cases = []
    for seed, sizes in enumerate(plan):
        n = torch.tensor(sizes, device="cpu", dtype=torch.float64)
        limit, slope = (1.5 + seed, 90.0) if seed != 3 else (0.0, 150.0)
        distances = limit + slope / n + 0.15 * draw(len(n), seed=seed) * (seed != 7)
        facts = {
            "for two points": len(sizes) == 2,
            "where the points do not lie on a line": len(sizes) > 2 and seed != 7,
            "for more than four points": len(sizes) > 4,
            "where the sizes do not grow": sorted(sizes) != list(sizes),
        }
        cases.append(Case(f"sizes {sizes}", (n, distances), facts))
    return cases


@exercise(
    "8.4",
    limit_cases,
    first="sketch the distances of three sizes, over n and then over 1/n. Over which do they lie on a line?",
    tolerance=1e-4,
    any_float=True,
)
def frechet_limit(sizes, distances):
    """The Frechet distance that infinitely many samples would have.

    sizes:      (K,) float64, numbers of samples, K >= 2
    distances:  (K,) float64, the distances measured with them
    returns     a number, the limit: d in the line d + c / n that fits best (least squares);
                below 0 if that is where the line ends
    """
    x = 1 / sizes
    line = torch.stack([torch.ones_like(x), x], dim=1)  # (K, 2)
    constant, slope = torch.linalg.lstsq(line, distances[:, None]).solution[:, 0]
    return constant.item()


def image_cases() -> list[Case]:
    plan = [((5, 1, 6, 6), 12), ((4, 3, 4, 5), 9), ((3, 1, 28, 28), 20), ((7, 2, 3, 3), 7), ((1, 1, 4, 4), 6)]
    cases = []
    for seed, (shape, m) in enumerate(plan):
        generator = torch.Generator(device="cpu").manual_seed(seed)
        images = partial(torch.randint, 0, 256, generator=generator, dtype=torch.uint8, device="cpu")
        training = images((m, *shape[1:]))
        training[1] = training[1] // 2 + 127  # a bright one, which has the largest inner product with most
        training[2] = training[2] // 4  # a dark one
        facts = {
            "for one sample": shape[0] == 1,
            "for as many samples as training images": shape[0] == m,
            "for images with channels": shape[1] > 1,
        }
        given = images(shape)
        squares = (given[:, None].double() - training.double()).square().flatten(2).sum(2)
        facts["where the last training image is the nearest"] = squares.argmin(1) == m - 1
        label = f"samples {shape}, training ({m}, {', '.join(map(str, shape[1:]))})"
        cases.append(Case(label, (given, training), facts))
    generator = torch.Generator(device="cpu").manual_seed(9)
    training = torch.randint(0, 256, (10, 1, 5, 5), generator=generator, dtype=torch.uint8, device="cpu")
    copies = training[[7, 2, 2, 9]].clone()
    last = {"where the last training image is the nearest": torch.tensor([False, False, False, True], device="cpu")}
    return [*cases, Case("copies of training images", (copies, training), {"for copies": True, **last})]


@exercise(
    "8.5",
    image_cases,
    first="take two pixels by hand, 200 and 210. What is their squared difference, and what does uint8 make of it?",
)
def nearest(samples, training):
    """Which training image is nearest to each sample: least sum of squared differences.

    samples:   (N, C, H, W) uint8
    training:  (M, C, H, W) uint8
    returns    (N,) int64 indices into training
    """
    a, b = samples.flatten(1).double(), training.flatten(1).double()  # (N, D), (M, D)
    squared = a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)  # (N, M)
    return squared.argmin(1)


def count_cases() -> list[Case]:
    plan = [
        *(((90, 115, 95, 100, 100), (0.2,) * 5), ((12, 40, 30, 18), (0.1, 0.4, 0.3, 0.2))),
        *(((500, 480, 20), (0.5, 0.45, 0.05)), ((0, 37), (0.1, 0.9))),
        *(((7, 11, 5, 4), (0.3, 0.45, 0.2, 0.05)), ((900, 100), (0.5, 0.5))),
        ((103, 88, 121, 99, 95, 110, 71, 108, 104, 101), (0.1, 0.1, 0.11, 0.1, 0.1, 0.1, 0.08, 0.1, 0.11, 0.1)),
    ]
    cases = []
    for numbers, probabilities in plan:
        counts = torch.tensor(numbers, device="cpu")
        shares = torch.tensor(probabilities, dtype=torch.float64, device="cpu")
        expected = sum(numbers) * shares
        facts = {
            "for a count of 0": counts == 0,
            "for shares that differ": len(set(probabilities)) > 1,
            "where what is expected is no whole number": (expected - expected.round()).abs() > 1e-6,
            "where there are not 1000 samples": sum(numbers) != 1000,
            "for scores beyond 3": (counts == 20) | (counts == 900) | (numbers == (900, 100)),
            "where there are fewer than expected": counts < expected - 1e-6,
        }
        cases.append(Case(f"counts {list(numbers)}", (counts, shares), facts))
    return cases


@exercise(
    "8.6",
    count_cases,
    first="1000 samples, a share of 0.1: how many do you expect, and how far off is usual?",
    tolerance=1e-4,
    any_float=True,
)
def count_scores(counts, shares):
    """How many standard deviations each class's count is from what the shares let you expect.

    counts:   (K,) integers: samples in each class
    shares:   (K,) float64: probability of each class, between 0 and 1
    returns   (K,) float64: positive where there are too many
    """
    n = counts.sum()
    expected = n * shares
    deviation = (n * shares * (1 - shares)).sqrt()
    return (counts - expected) / deviation


def ball_cases() -> list[Case]:
    plan = [((90, 4), 40, 3, 2.0), ((60, 8), 60, 2, 1.5), ((40, 2), 30, 1, 1.2), ((80, 16), 60, 5, 1.5)]
    plan += [((1, 4), 20, 3, 0.8), ((50, 64), 45, 4, 0.9)]
    cases = []
    for seed, ((n, dim), m, k, spread) in enumerate(plan):
        wide = 10 ** (1.5 * draw(m, 1, seed=seed + 40, kind=torch.rand) - 1)  # crowds in small balls, few in large ones
        reference = draw(m, dim, seed=seed) * wide
        samples = draw(n, dim, seed=seed + 20) * spread
        sorted_distances = torch.cdist(reference, reference).sort(1).values
        if seed in (1, 3):  # most samples lie near the rim of some ball
            rows = torch.arange(n, device="cpu") % m
            share = 0.5 + 0.6 * draw(n, 1, seed=seed + 65, kind=torch.rand)
            samples = reference[rows] + share * sorted_distances[rows, k : k + 1] * samples / samples.norm(
                dim=1, keepdim=True
            )
        if seed == 3:
            samples[:4] = 0.999 * reference[5:9]
        if seed == 5:  # some lie where a ball ends, or would end if the second of two alike were left out
            reference[3:7] = reference[11:15]
            ends = torch.cdist(reference[3:7], reference).sort(1).values[:, k : k + 2].mean(1, keepdim=True)
            samples[:4] = reference[3:7] - ends * reference[3:7] / reference[3:7].norm(dim=1, keepdim=True)
        apart = torch.cdist(samples, reference)
        radius = torch.cdist(reference, reference).sort(1).values[:, k]
        facts = {
            "for k = 1": k == 1,
            "for as many samples as reference items": n == m,
            "for one sample": n == 1,
            "where reference items come twice": seed == 5,
            "for samples very near a reference item": apart.amin(1) < 0.01,
            "where the ball of the nearest reference item does not hold the sample": (
                apart.amin(1) > radius[apart.argmin(1)]
            ),
            "for samples in no ball": (apart > radius).all(1),
        }
        cases.append(Case(f"samples ({n}, {dim}), reference ({m}, {dim}), k = {k}", (samples, reference, k), facts))
    return cases


@exercise(
    "8.7",
    ball_cases,
    first="copy broken_inside into this cell. On paper, draw five points, and for k = 1 the ball around one of them.",
)
def inside_balls(samples, reference, k):
    """broken_inside without its three faults: which samples lie in a ball around a real one.

    samples:    (N, D) features, float64
    reference:  (M, D) features. The ball around each item reaches to the k-th nearest of the
                *other* items; one that comes twice is its own neighbour at distance 0
    k:          an int, 1 <= k < M
    returns     (N,) bool: True for each sample inside at least one of the M balls
    """
    among = torch.cdist(reference, reference)  # (M, M)
    near = among.topk(k + 1, largest=False).values  # each item itself, and k others
    radius = near[:, -1]  # (M,)
    apart = torch.cdist(samples, reference)  # (N, M)
    return (apart <= radius).any(1)
