"""The checks of lesson 08: bits, Fréchet distances, nearest neighbours and counts."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .. import metrics
from ..schedules import Schedule
from . import answers08 as answers
from .cases import EIGHT, FIVE
from .records import Case, Exercise, Mistake

BITS = "lesson 08, 'Nats and bits'"
TERM = "lesson 08, 'The bound, term by term'"
FRECHET = "lesson 08, 'The Fréchet distance'"
SAMPLES = "lesson 08, 'The number of samples'"
NEAREST = "lesson 08, 'The nearest training image'"
CLASSES = "lesson 08, 'Counting classes'"


def _draw(*shape: int, seed: int, kind: Callable = torch.randn, dtype: torch.dtype = torch.float64) -> Tensor:
    return kind(*shape, generator=torch.Generator(device="cpu").manual_seed(seed), dtype=dtype, device="cpu")


# ---- 8.1


def _bits_cases() -> list[Case]:
    plan = [((1, 28, 28), 4), ((3, 32, 32), 4), ((3, 8, 4), 3), ((5,), 5), ((2, 6), 2), ((1, 4, 9), 1)]
    cases = []
    for seed, (shape, n) in enumerate(plan):
        nats = _draw(n, seed=seed, kind=torch.rand) * 4 * math.prod(shape) + 1
        facts = {
            "for images with more than one channel": len(shape) == 3 and shape[0] > 1,
            "for images that are not square": len(shape) == 3 and shape[1] != shape[2],
            "for data that is not images": len(shape) < 3,
            "for a tensor of nats": True,
        }
        cases.append(Case(f"nats of shape ({n},), items of shape {shape}", (nats, shape), facts))
    one = {"for one number": True, "for images with more than one channel": True}
    return [*cases, Case("one number, items of shape (3, 2, 2)", (21.5, (3, 2, 2)), one)]


def _bits(size: Callable[[tuple[int, ...]], float], unit: float = math.log(2)) -> Callable:
    return lambda nats, shape: nats / (size(shape) * unit)


bits_per_dimension = Exercise(
    "8.1",
    "bits_per_dimension",
    answers.bits_per_dimension,
    _bits_cases,
    stub='''
def bits_per_dimension(nats, shape):
    """Bits per dimension from nats.

    nats:    (B,) -ln p(x_0) of each whole image, or one number
    shape:   of one image, (C, H, W), or of other data
    returns  bits for each of the image's values, in the shape of nats
    """
    raise NotImplementedError  # your code here
''',
    first="an image of 784 values costs 784 ln 2 nats. How many bits is that for each value? (One.)",
    tolerance=1e-5,
    any_float=True,
    mistakes=[
        Mistake(
            "nats_per_dimension",
            f"These are nats per dimension. A bit is ln 2 = 0.69 nats, so divide by that too ({BITS}).",
            _bits(math.prod, 1.0),
        ),
        Mistake(
            "multiplied_by_ln2",
            f"You multiply by ln 2. A nat is *more* than a bit, so the number in bits is larger: divide ({BITS}).",
            _bits(math.prod, 1 / math.log(2)),
        ),
        Mistake(
            "whole_image",
            f"That is bits for the whole image. Divide by the number of its values ({BITS}).",
            lambda nats, shape: nats / math.log(2),
        ),
        Mistake(
            "pixels_only",
            "You divide by the number of pixels. A colour image has three values in each: count channels too "
            f"({BITS}).",
            _bits(lambda shape: math.prod(shape[-2:])),
            _bits(lambda shape: math.prod(shape[1:])),
        ),
        Mistake(
            "summed_shape",
            f"You add the sides. The number of values is their product ({BITS}).",
            _bits(sum),
        ),
        Mistake(
            "channels_only",
            f"You divide by the first entry of the shape alone: `len` and `shape[0]` do not count values ({BITS}).",
            _bits(lambda shape: shape[0]),
            _bits(len),
        ),
        Mistake(
            "log_of_nats",
            f"You take the logarithm of the nats. They *are* a logarithm already: only its base changes ({BITS}).",
            lambda nats, shape: torch.as_tensor(nats).log2() / math.prod(shape),
        ),
        Mistake(
            "sign",
            f"The nats are -ln p already, so no sign is needed: a cost in bits is positive ({BITS}).",
            lambda nats, shape: -nats / (math.prod(shape) * math.log(2)),
        ),
        Mistake(
            "log10",
            f"You divide by the logarithm of 10. Bits count in twos: ln 2 ({BITS}).",
            _bits(math.prod, math.log(10)),
            _bits(math.prod, math.log10(2)),
        ),
        Mistake(
            "per_batch",
            f"You average over the batch. Each image has its own number ({BITS}).",
            lambda nats, shape: torch.as_tensor(nats).mean() / (math.prod(shape) * math.log(2)),
        ),
    ],
)


# ---- 8.2


def _step_cases() -> list[Case]:
    plan = [(EIGHT, 5, 4), (EIGHT, 2, 3), (EIGHT, 8, 3), (EIGHT, (2, 8, 5), 3), (EIGHT, (7, 3, 3, 6), 4)]
    plan += [(EIGHT, (4,), 1), (FIVE, 3, 3), (FIVE, (5, 2, 4), 3)]
    cases = []
    for seed, (betas, t, n) in enumerate(plan):
        many = not isinstance(t, int)
        each = torch.tensor(t, device="cpu")
        facts = {
            "where t = 2": each == 2,
            "where t = T": each == len(betas.values),
            "for an int t": not many,
            "for t of shape (B,)": many,
            "for a schedule with another T": betas is FIVE,
        }
        value = torch.tensor(t, device="cpu") if many else t
        error = _draw(n, seed=seed, kind=torch.rand) + 0.1
        cases.append(Case(f"t = {t if not many else list(t)}, T = {len(betas.values)}", (betas, value, error), facts))
    return cases


def _step(weight: Callable, *, unit: float = math.log(2), shift: int = 0) -> Callable:
    """A weight made of alpha_bar before and after the step, (before, after) -> number, times the error, in nats."""

    def function(schedule: Schedule, t: Tensor | int, error: Tensor) -> Tensor:
        alpha_bar = schedule.alpha_bar
        index = [(t - 1 + shift), (t + shift)]
        before, after = (alpha_bar[i % len(alpha_bar)] for i in index)
        return weight(before, after) * error / unit

    return function


def _snr(alpha_bar: Tensor) -> Tensor:
    return alpha_bar / (1 - alpha_bar)


def _right(before: Tensor, after: Tensor) -> Tensor:
    return 0.5 * (_snr(before) - _snr(after))


step_bits = Exercise(
    "8.2",
    "step_bits",
    answers.step_bits,
    _step_cases,
    stub='''
def step_bits(schedule, t, error):
    """L_{t-1} in bits per dimension, for reverse steps with the variance beta-tilde.

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    t:         an int in 2...T, or (B,) integers
    error:     (B,) mean squared difference of x_0 and its estimate, each image's own
    returns    (B,)
    """
    raise NotImplementedError  # your code here
''',
    first="make a table of SNR = ᾱ / (1 - ᾱ) for all t. Which two of its entries does step t need?",
    tolerance=1e-5,
    any_float=True,
    mistakes=[
        Mistake(
            "no_half",
            f"Twice too large: the KL divergence of two Gaussians has a 1/2 in front ({TERM}).",
            _step(lambda a, b: _snr(a) - _snr(b)),
        ),
        Mistake(
            "nats",
            f"Right, in nats. Divide by ln 2 for bits ({BITS}).",
            _step(_right, unit=1.0),
        ),
        Mistake(
            "multiplied_by_ln2",
            f"You multiply by ln 2. A nat is more than a bit: divide ({BITS}).",
            _step(_right, unit=1 / math.log(2)),
        ),
        Mistake(
            "no_half_nats",
            f"Two things are missing: the 1/2 of the KL divergence ({TERM}), and ln 2, which turns nats into bits.",
            _step(lambda a, b: _snr(a) - _snr(b), unit=1.0),
        ),
        Mistake(
            "sign",
            f"Your bits are negative. SNR falls with t, so the drop is SNR(t-1) - SNR(t) ({TERM}).",
            _step(lambda a, b: -_right(a, b)),
        ),
        Mistake(
            "next_step",
            f"You take the drop from t to t + 1. The step from t leads *down* to t - 1 ({TERM}).",
            _step(_right, shift=1),
        ),
        Mistake(
            "step_before",
            "You take the drop from t - 2 to t - 1. Tables have an entry 0 for clean data, so step t needs entries "
            f"t - 1 and t ({TERM}).",
            _step(_right, shift=-1),
        ),
        Mistake(
            "snr_itself",
            f"You weigh with the SNR itself. What counts is by how much it *drops* in this step ({TERM}).",
            _step(lambda a, b: 0.5 * _snr(b)),
            _step(lambda a, b: 0.5 * _snr(a)),
        ),
        Mistake(
            "log_snr",
            f"You take the drop of the logarithm. The weight is the drop of SNR itself ({TERM}).",
            _step(lambda a, b: 0.5 * (_snr(a).log() - _snr(b).log())),
        ),
        Mistake(
            "inverted",
            f"You have noise over signal. SNR is ᾱ / (1 - ᾱ) ({TERM}).",
            _step(lambda a, b: 0.5 * (1 / _snr(a) - 1 / _snr(b))),
            _step(lambda a, b: 0.5 * (1 / _snr(b) - 1 / _snr(a))),
        ),
        Mistake(
            "alpha_bar_drop",
            f"You take the drop of ᾱ. It is SNR = ᾱ / (1 - ᾱ) that counts ({TERM}).",
            _step(lambda a, b: 0.5 * (a - b)),
        ),
        Mistake(
            "rooted",
            f"You use the ratio of standard deviations. SNR is a ratio of variances: no roots ({TERM}).",
            _step(lambda a, b: 0.5 * (_snr(a).sqrt() - _snr(b).sqrt())),
        ),
        Mistake(
            "error_squared",
            f"`error` is a squared difference already: do not square it again ({TERM}).",
            lambda schedule, t, error: answers.step_bits(schedule, t, error**2),
        ),
        Mistake(
            "error_rooted",
            f"The term takes the *squared* error as it is: no root ({TERM}).",
            lambda schedule, t, error: answers.step_bits(schedule, t, error.sqrt()),
        ),
        Mistake(
            "mean_error",
            f"You average over the batch. Each image has its own number ({TERM}).",
            lambda schedule, t, error: answers.step_bits(schedule, t, error.mean().expand(len(error))),
            lambda schedule, t, error: answers.step_bits(schedule, t, error).mean(),
        ),
    ],
)


# ---- 8.3


def _gaussian_cases() -> list[Case]:
    def pair(dim: int, seed: int, *, diagonal: bool = False, rank: int | None = None) -> tuple[Tensor, Tensor]:
        if diagonal:
            return _draw(dim, seed=seed), (_draw(dim, seed=seed + 50, kind=torch.rand) * 3 + 0.2).diag()
        root = _draw(dim, rank or dim, seed=seed + 50)
        return _draw(dim, seed=seed), root @ root.T + 0.1 * torch.eye(dim, dtype=torch.float64) * (rank is None)

    plan = [
        ("D = 1", pair(1, 0), pair(1, 1)),
        ("D = 2, diagonal covariances", pair(2, 2, diagonal=True), pair(2, 3, diagonal=True)),
        ("D = 2", pair(2, 4), pair(2, 5)),
        ("D = 3", pair(3, 6), pair(3, 7)),
        ("D = 5", pair(5, 8), pair(5, 9)),
        ("D = 4, singular covariances", pair(4, 10, rank=2), pair(4, 11, rank=2)),
    ]
    same = pair(3, 12)
    plan += [("D = 3, equal means", same, (same[0], pair(3, 13)[1]))]
    plan += [("D = 3, equal covariances", same, (pair(3, 14)[0], same[1])), ("D = 3, one and the same", same, same)]
    return [
        Case(
            label,
            (*one, *two),
            {
                "for covariances that are not diagonal": "diagonal" not in label and "1" not in label,
                "for covariances with eigenvalues 0": "singular" in label,
                "where the two Gaussians are the same": "same" in label,
                "where the means differ": "equal means" not in label and "same" not in label,
                "in one dimension": label == "D = 1",
            },
        )
        for label, one, two in plan
    ]


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _cross(cov1: Tensor, cov2: Tensor) -> Tensor:
    root = _root(cov1)
    return torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()


def _frechet(of_means: Callable, of_covs: Callable) -> Callable:
    return lambda mean1, cov1, mean2, cov2: float(of_means(mean1 - mean2) + of_covs(cov1, cov2))


def _moved(difference: Tensor) -> Tensor:
    return difference.square().sum()


def _shaped(cov1: Tensor, cov2: Tensor) -> Tensor:
    return cov1.trace() + cov2.trace() - 2 * _cross(cov1, cov2)


frechet_of_gaussians = Exercise(
    "8.3",
    "frechet_of_gaussians",
    metrics.gaussian_frechet,
    _gaussian_cases,
    stub='''
def frechet_of_gaussians(mean1, cov1, mean2, cov2):
    """The squared Frechet distance of N(mean1, cov1) and N(mean2, cov2).

    mean1, mean2:  (D,) float64
    cov1, cov2:    (D, D) float64, symmetric, with no negative eigenvalues
    returns        a number
    """
    raise NotImplementedError  # your code here
''',
    first="begin in one dimension, where it is (m1 - m2)² + (σ1 - σ2)². What is σ1 σ2 made of C1 and C2?",
    tolerance=1e-4,
    mistakes=[
        Mistake(
            "distance_not_squared",
            f"You return the distance. Asked is its square, as for a FID ({FRECHET}).",
            lambda *args: max(metrics.gaussian_frechet(*args), 0.0) ** 0.5,
        ),
        Mistake(
            "means_not_squared",
            f"The means enter with their *squared* distance ({FRECHET}).",
            _frechet(lambda d: d.norm(), _shaped),
            _frechet(lambda d: d.abs().sum(), _shaped),
        ),
        Mistake(
            "means_averaged",
            f"You average the squared differences of the means over the dimensions. They are added ({FRECHET}).",
            _frechet(lambda d: d.square().mean(), _shaped),
        ),
        Mistake(
            "means_only",
            f"You compare the means alone. Two clouds can differ in width and direction too ({FRECHET}).",
            _frechet(_moved, lambda a, b: 0.0),
        ),
        Mistake(
            "covariances_only",
            f"The distance of the means is missing ({FRECHET}).",
            _frechet(lambda d: 0.0, _shaped),
        ),
        Mistake(
            "no_two",
            f"The cross term comes twice, as in (a - b)² = a² + b² - 2ab. Equal Gaussians must be 0 apart ({FRECHET}).",
            _frechet(_moved, lambda a, b: a.trace() + b.trace() - _cross(a, b)),
        ),
        Mistake(
            "plus",
            f"The cross term is subtracted. Equal Gaussians must be 0 apart ({FRECHET}).",
            _frechet(_moved, lambda a, b: a.trace() + b.trace() + 2 * _cross(a, b)),
        ),
        Mistake(
            "no_root",
            f"The root of the product is missing: in one dimension the term is 2 σ1 σ2, not 2 σ1² σ2² ({FRECHET}).",
            _frechet(_moved, lambda a, b: a.trace() + b.trace() - 2 * (a @ b).trace()),
        ),
        Mistake(
            "root_of_trace",
            f"The root comes before the trace: add the roots of the eigenvalues ({FRECHET}).",
            _frechet(_moved, lambda a, b: a.trace() + b.trace() - 2 * (a @ b).trace().clamp(min=0).sqrt()),
        ),
        Mistake(
            "elementwise_root",
            "You take the root of every *entry*. A matrix root is the matrix whose product with itself is C: "
            f"torch.linalg.eigh gives it ({FRECHET}).",
            _frechet(_moved, lambda a, b: a.trace() + b.trace() - 2 * (a @ b).clamp(min=0).sqrt().trace()),
            _frechet(_moved, lambda a, b: a.trace() + b.trace() - 2 * (a @ b).sqrt().trace()),
            _frechet(_moved, lambda a, b: a.trace() + b.trace() - 2 * (a.sqrt() @ b.sqrt()).trace()),
        ),
        Mistake(
            "diagonal_only",
            "You compare the variances of single features and drop how features go together: the turned pair of this "
            f"section would be 0 apart ({FRECHET}).",
            _frechet(_moved, lambda a, b: (a.diag().sqrt() - b.diag().sqrt()).square().sum()),
        ),
        Mistake(
            "roots_multiplied",
            "The trace of C1^½ C2^½ is the right cross term only where the two covariances have the same axes. Take "
            f"the root of the product C1^½ C2 C1^½ ({FRECHET}).",
            _frechet(_moved, lambda a, b: a.trace() + b.trace() - 2 * (_root(a) @ _root(b)).trace()),
        ),
        Mistake(
            "sorted_eigenvalues",
            "You compare the eigenvalues alone: that says how wide the clouds are, not in which directions "
            f"({FRECHET}).",
            _frechet(
                _moved,
                lambda a, b: (
                    (torch.linalg.eigvalsh(a).clamp(min=0).sqrt() - torch.linalg.eigvalsh(b).clamp(min=0).sqrt())
                    .square()
                    .sum()
                ),
            ),
        ),
        Mistake(
            "difference_of_covariances",
            f"The squared difference of the covariances is another distance. Follow the formula ({FRECHET}).",
            _frechet(_moved, lambda a, b: (a - b).square().sum()),
            _frechet(_moved, lambda a, b: (a - b).norm()),
        ),
    ],
)


# ---- 8.4


def _limit_cases() -> list[Case]:
    plan = [(100, 200, 400, 800), (100, 150, 250, 400, 650, 1000), (80, 90, 1000), (500, 1000, 2000), (64, 128)]
    cases = []
    for seed, sizes in enumerate(plan):
        n = torch.tensor(sizes, device="cpu")
        limit, slope = (1.5 + seed, 90.0) if seed != 3 else (0.0, 150.0)
        distances = limit + slope / n.double() + 0.15 * _draw(len(n), seed=seed)
        facts = {"for two points": len(sizes) == 2, "where the sizes are not spaced evenly": seed in (1, 2)}
        cases.append(Case(f"sizes {sizes}", (n, distances), facts))
    shuffled = torch.tensor([400, 100, 1000, 150], device="cpu")
    distances = 2 + 80 / shuffled.double() + 0.1 * _draw(4, seed=9)
    return [*cases, Case("sizes in any order", (shuffled, distances), {"where the sizes do not grow": True})]


def _line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return y.mean() - slope * x.mean(), slope


def _fit(axis: Callable, part: int = 0) -> Callable:
    return lambda sizes, distances: _line(axis(sizes.double()), distances)[part]


def _ends(first: int, last: int) -> Callable:
    return lambda sizes, distances: _line(1 / sizes.double()[[first, last]], distances[[first, last]])[0]


frechet_limit = Exercise(
    "8.4",
    "frechet_limit",
    answers.frechet_limit,
    _limit_cases,
    stub='''
def frechet_limit(sizes, distances):
    """The Frechet distance that infinitely many samples would have.

    sizes:      (K,) numbers of samples, integers
    distances:  (K,) float64, the distances measured with them
    returns     the limit: d in the line d + c / n that fits best (least squares)
    """
    raise NotImplementedError  # your code here
''',
    first="make x = 1 / sizes. Which straight line in x fits the distances, and what is it at x = 0?",
    tolerance=1e-4,
    any_float=True,
    mistakes=[
        Mistake(
            "against_n",
            f"You fit a line in n. The bias falls like 1/n, so fit a line in 1/n ({SAMPLES}).",
            _fit(lambda n: n),
        ),
        Mistake(
            "returned_slope",
            f"You return the slope c. Asked is the constant d, where the line meets 1/n = 0 ({SAMPLES}).",
            _fit(lambda n: 1 / n, 1),
        ),
        Mistake(
            "root_n",
            "You fit against 1/√n. That is how a *standard error* falls. The distance is a square, so its bias falls "
            f"like 1/n ({SAMPLES}).",
            _fit(lambda n: n**-0.5),
        ),
        Mistake(
            "logarithm",
            f"You fit against the logarithm of n. The bias falls like 1/n ({SAMPLES}).",
            _fit(lambda n: n.log()),
        ),
        Mistake(
            "largest_only",
            f"That is the distance of the most samples. It is biased too, only less ({SAMPLES}).",
            lambda sizes, distances: distances[sizes.argmax()],
            lambda sizes, distances: distances[-1],
        ),
        Mistake(
            "smallest_distance",
            f"The smallest distance is not the limit: it is biased too, and chance picked it ({SAMPLES}).",
            lambda sizes, distances: distances.min(),
        ),
        Mistake(
            "averaged",
            f"An average of biased numbers is biased. Follow the line to 1/n = 0 ({SAMPLES}).",
            lambda sizes, distances: distances.mean(),
        ),
        Mistake(
            "two_points",
            f"You draw the line through two of the points. Least squares uses all of them ({SAMPLES}).",
            _ends(0, -1),
            _ends(-2, -1),
        ),
        Mistake(
            "through_origin",
            "You fit c/n with no constant, or subtract it: the line need not go through 0, and where it ends is what "
            f"is asked ({SAMPLES}).",
            lambda sizes, distances: (distances - (distances * sizes).mean() / sizes).mean(),
            lambda sizes, distances: (distances / sizes).sum() / (1 / sizes.double()).square().sum(),
        ),
    ],
)


# ---- 8.5


def _image_cases() -> list[Case]:
    plan = [((5, 1, 6, 6), 12), ((4, 3, 4, 5), 9), ((3, 1, 28, 28), 20), ((7, 2, 3, 3), 7), ((1, 1, 4, 4), 6)]
    cases = []
    for seed, (shape, m) in enumerate(plan):
        generator = torch.Generator(device="cpu").manual_seed(seed)
        draw = partial(torch.randint, 0, 256, generator=generator, dtype=torch.uint8, device="cpu")
        training = draw((m, *shape[1:]))
        training[1] = training[1] // 2 + 127  # a bright one, which has the largest inner product with most
        training[2] = training[2] // 4  # a dark one
        facts = {
            "for one sample": shape[0] == 1,
            "for as many samples as training images": shape[0] == m,
            "for images with channels": shape[1] > 1,
        }
        label = f"samples {shape}, training ({m}, {', '.join(map(str, shape[1:]))})"
        cases.append(Case(label, (draw(shape), training), facts))
    generator = torch.Generator(device="cpu").manual_seed(9)
    training = torch.randint(0, 256, (10, 1, 5, 5), generator=generator, dtype=torch.uint8, device="cpu")
    copies = training[[7, 2, 2, 9]].clone()
    return [*cases, Case("copies of training images", (copies, training), {"for copies": True})]


def _pairs(samples: Tensor, training: Tensor) -> Tensor:
    """(N, M, D) differences in float64."""
    return samples.flatten(1).double()[:, None] - training.flatten(1).double()


nearest = Exercise(
    "8.5",
    "nearest",
    answers.nearest,
    _image_cases,
    stub='''
def nearest(samples, training):
    """Which training image is nearest to each sample: least sum of squared differences.

    samples:   (N, C, H, W) uint8
    training:  (M, C, H, W) uint8
    returns    (N,) int64 indices into training
    """
    raise NotImplementedError  # your code here
''',
    first="take one sample. Make it float, subtract it from all training images, square, sum over an image's pixels.",
    mistakes=[
        Mistake(
            "bytes_wrap",
            f"You subtract uint8 from uint8, which wraps around: 200 - 210 is 246. Make floats first ({NEAREST}).",
            lambda a, b: (a.flatten(1)[:, None] - b.flatten(1)).double().square().sum(2).argmin(1),
            lambda a, b: (a.flatten(1)[:, None] - b.flatten(1)).square().sum(2).argmin(1),
        ),
        Mistake(
            "farthest",
            f"That is the training image *farthest* from each sample: argmin, not argmax ({NEAREST}).",
            lambda a, b: _pairs(a, b).square().sum(2).argmax(1),
        ),
        Mistake(
            "other_way",
            "You find the nearest sample for each training image. Asked is the nearest training image for each sample: "
            f"the minimum along the other axis ({NEAREST}).",
            lambda a, b: _pairs(a, b).square().sum(2).argmin(0),
        ),
        Mistake(
            "absolute",
            f"You add absolute differences. Asked is the least sum of *squares* ({NEAREST}).",
            lambda a, b: _pairs(a, b).abs().sum(2).argmin(1),
        ),
        Mistake(
            "largest_difference",
            f"You compare the largest difference of any pixel. Asked is the sum of squares of all ({NEAREST}).",
            lambda a, b: _pairs(a, b).abs().amax(2).argmin(1),
        ),
        Mistake(
            "inner_product",
            "The largest inner product prefers bright images. In |a|² - 2ab + |b|² the last term differs between "
            f"training images: keep it ({NEAREST}).",
            lambda a, b: (a.flatten(1).double() @ b.flatten(1).double().T).argmax(1),
        ),
        Mistake(
            "cosine",
            f"You compare directions: an image and its darker copy count as equal. Asked are differences ({NEAREST}).",
            lambda a, b: (a.flatten(1).double() @ torch.nn.functional.normalize(b.flatten(1).double()).T).argmax(1),
        ),
        Mistake(
            "signed",
            "Positive and negative differences cancel in your sum: you compare average brightness. Square first "
            f"({NEAREST}).",
            lambda a, b: _pairs(a, b).sum(2).abs().argmin(1),
            lambda a, b: _pairs(a, b).sum(2).argmin(1),
        ),
        Mistake(
            "first_for_all",
            f"You look up the first sample only. Each has its own neighbour ({NEAREST}).",
            lambda a, b: _pairs(a[:1], b).square().sum(2).argmin(1).expand(len(a)),
            lambda a, b: _pairs(a[:1], b).square().sum(2).argmin(1)[0],
        ),
        Mistake(
            "distances",
            f"You return the distances. Asked is *which* training image: argmin gives the index ({NEAREST}).",
            lambda a, b: _pairs(a, b).square().sum(2).amin(1),
            lambda a, b: _pairs(a, b).square().sum(2).amin(1).sqrt(),
        ),
    ],
)


# ---- 8.6


def _count_cases() -> list[Case]:
    plan = [
        ((90, 115, 95, 100, 100), (0.2,) * 5),
        ((12, 40, 30, 18), (0.1, 0.4, 0.3, 0.2)),
        ((500, 480, 20), (0.5, 0.45, 0.05)),
        ((0, 37), (0.1, 0.9)),
        ((103, 88, 121, 99, 95, 110, 71, 108, 104, 101), (0.1, 0.1, 0.11, 0.1, 0.1, 0.1, 0.08, 0.1, 0.11, 0.1)),
    ]
    return [
        Case(
            f"counts {list(counts)}",
            (torch.tensor(counts, device="cpu"), torch.tensor(shares, dtype=torch.float64, device="cpu")),
            {"for a count of 0": 0 in counts, "for shares that differ": len(set(shares)) > 1},
        )
        for counts, shares in plan
    ]


def _scores(of: Callable, per: Callable) -> Callable:
    """(count - expected) over something of (n, p, count)."""

    def function(counts: Tensor, shares: Tensor) -> Tensor:
        n = counts.sum()
        return of(counts - n * shares) / per(n, shares, counts)

    return function


def _same(x: Tensor) -> Tensor:
    return x


def _binomial(n: Tensor, p: Tensor, counts: Tensor) -> Tensor:
    return (n * p * (1 - p)).sqrt()


count_scores = Exercise(
    "8.6",
    "count_scores",
    answers.count_scores,
    _count_cases,
    stub='''
def count_scores(counts, shares):
    """How many standard deviations each class's count is from what the shares let you expect.

    counts:   (K,) integers: samples in each class
    shares:   (K,) float64: probability of each class, between 0 and 1
    returns   (K,) float64: positive where there are too many
    """
    raise NotImplementedError  # your code here
''',
    first="1000 samples, a share of 0.1: how many do you expect, and how far off is usual?",
    tolerance=1e-4,
    any_float=True,
    mistakes=[
        Mistake(
            "poisson",
            f"You divide by √(np). Where a class is a share p of n draws, the variance is np(1 - p) ({CLASSES}).",
            _scores(_same, lambda n, p, c: (n * p).sqrt()),
        ),
        Mistake(
            "divided_by_variance",
            f"You divide by the variance np(1 - p). Its root is the standard deviation ({CLASSES}).",
            _scores(_same, lambda n, p, c: n * p * (1 - p)),
        ),
        Mistake(
            "not_divided",
            f"That is the difference in images. Divide by the standard deviation ({CLASSES}).",
            _scores(_same, lambda n, p, c: 1),
        ),
        Mistake(
            "relative",
            f"That is the difference as a share of what is expected. Divide by the standard deviation ({CLASSES}).",
            _scores(_same, lambda n, p, c: n * p),
        ),
        Mistake(
            "sign",
            f"The sign is turned around: too many is positive ({CLASSES}).",
            _scores(lambda d: -d, _binomial),
        ),
        Mistake(
            "absolute",
            f"Keep the sign: it says whether there are too many or too few ({CLASSES}).",
            _scores(lambda d: d.abs(), _binomial),
        ),
        Mistake(
            "squared",
            f"You square it, as a chi-squared test does. Asked is the score itself, with its sign ({CLASSES}).",
            _scores(lambda d: d.square(), lambda n, p, c: n * p),
            _scores(lambda d: d.square(), lambda n, p, c: n * p * (1 - p)),
        ),
        Mistake(
            "of_the_shares",
            "You compare shares but divide by the deviation of *counts*, or the other way round. A share has the "
            f"deviation √(p(1 - p)/n) ({CLASSES}).",
            lambda counts, shares: (counts / counts.sum() - shares) / _binomial(counts.sum(), shares, counts),
            _scores(_same, lambda n, p, c: (p * (1 - p)).sqrt()),
            _scores(_same, lambda n, p, c: (p * (1 - p) / n).sqrt()),
        ),
        Mistake(
            "equal_shares",
            f"You expect the same in every class. Use the share that each has: the judge's own on real images "
            f"({CLASSES}).",
            lambda counts, shares: answers.count_scores(counts, torch.full_like(shares, 1 / len(shares))),
        ),
        Mistake(
            "spread_of_counts",
            "You divide by the spread of the counts over the classes. Asked is how far *one* class may be off by "
            f"chance: √(np(1 - p)) ({CLASSES}).",
            _scores(_same, lambda n, p, c: c.double().std()),
            _scores(_same, lambda n, p, c: c.double().std(correction=0)),
            lambda counts, shares: (counts - counts.double().mean()) / counts.double().std(),
        ),
        Mistake(
            "observed_share",
            "You take the fluctuation from the counts themselves. Under the question *is this chance?* the shares "
            f"are the given ones ({CLASSES}).",
            _scores(_same, lambda n, p, c: (c * (1 - c / n)).sqrt()),
            _scores(_same, lambda n, p, c: c.double().sqrt()),
        ),
    ],
)
