"""Lesson 08: wrong answers typed as students type them, and right ones that differ in structure.

None of the wrong ones is taken from the catalogue. `WRONG` has one mistake each, by its id; `LOCATED` has two at once,
or one that no catalogue knows, and must never be given a name.
"""

import pytest
from typed import judge

from ddpm_course import checks

SNR = "a = schedule.alpha_bar\nsnr = a / (1 - a)\n"
ROOT = "l, v = torch.linalg.eigh(cov1)\nr = v @ l.clamp(min=0).sqrt().diag() @ v.T\nl = torch.linalg.eigvalsh(r @ cov2 @ r)\ncross = l.clamp(min=0).sqrt().sum()\nd = mean1 - mean2\n"
X = "x = 1 / sizes.double()\ny = distances\n"
AB = "a, b = samples.flatten(1).float(), training.flatten(1).float()\n"
E = "n = counts.sum()\nexpected = n * shares\n"

WRONG = [
    # 8.1
    ("bits_per_dimension", "nats / np.prod(shape)", "nats_per_dimension"),
    ("bits_per_dimension", "nats * math.log(2) / math.prod(shape)", "multiplied_by_ln2"),
    ("bits_per_dimension", "nats * math.log2(math.e)", "whole_image"),
    ("bits_per_dimension", "nats / math.log(2) / (shape[-1] * shape[-2] if len(shape) > 1 else shape[0])", "pixels_only"),
    ("bits_per_dimension", "nats / (sum(shape) * math.log(2))", "summed_shape"),
    ("bits_per_dimension", "nats / math.log(2) / len(shape)", "channels_only"),
    ("bits_per_dimension", "torch.log2(torch.tensor(nats) if isinstance(nats, float) else nats) / math.prod(shape)", "log_of_nats"),
    ("bits_per_dimension", "-nats / math.log(2) / math.prod(shape)", "sign"),
    ("bits_per_dimension", "nats / math.prod(shape) / math.log(10)", "log10"),
    # 8.2
    ("step_bits", SNR + "return (snr[t - 1] - snr[t]) * error / math.log(2)", "no_half"),
    ("step_bits", SNR + "return 0.5 * (snr[t - 1] - snr[t]) * error", "nats"),
    ("step_bits", SNR + "return (snr[t - 1] - snr[t]) / 2 * error * math.log(2)", "multiplied_by_ln2"),
    ("step_bits", SNR + "return (snr[t - 1] - snr[t]) * error", "no_half_nats"),
    ("step_bits", SNR + "return (snr[t] - snr[t - 1]) * error / (2 * math.log(2))", "sign"),
    ("step_bits", SNR + "return snr[t] * error / 2 / math.log(2)", "snr_itself"),
    ("step_bits", SNR + "return (snr[t - 1].log() - snr[t].log()) * error / 2 / math.log(2)", "log_snr"),
    ("step_bits", SNR.replace("a / (1 - a)", "(1 - a) / a") + "return (snr[t - 1] - snr[t]) * error / (2 * math.log(2))", "inverted"),
    ("step_bits", "a = schedule.alpha_bar\nreturn (a[t - 1] - a[t]) * error / (2 * math.log(2))", "alpha_bar_drop"),
    ("step_bits", SNR + "snr = snr.sqrt()\nreturn (snr[t - 1] - snr[t]) * error / math.log(4)", "rooted"),
    ("step_bits", SNR + "return (snr[t - 1] - snr[t]) * error ** 2 / math.log(4)", "error_squared"),
    ("step_bits", SNR + "return (snr[t - 1] - snr[t]) * error ** 0.5 / math.log(4)", "error_rooted"),
    # 8.3
    ("frechet_of_gaussians", ROOT + "return math.sqrt(max(0, d @ d + cov1.trace() + cov2.trace() - 2 * cross))", "distance_not_squared"),
    ("frechet_of_gaussians", ROOT + "return torch.linalg.norm(d) + cov1.trace() + cov2.trace() - 2 * cross", "means_not_squared"),
    ("frechet_of_gaussians", ROOT + "return (d ** 2).mean() + cov1.trace() + cov2.trace() - 2 * cross", "means_averaged"),
    ("frechet_of_gaussians", "((mean1 - mean2) ** 2).sum()", "means_only"),
    ("frechet_of_gaussians", ROOT + "return cov1.trace() + cov2.trace() - 2 * cross", "covariances_only"),
    ("frechet_of_gaussians", ROOT + "return d @ d + cov1.trace() + cov2.trace() - cross", "no_two"),
    ("frechet_of_gaussians", ROOT + "return d @ d + cov1.trace() + cov2.trace() + 2 * cross", "plus"),
    ("frechet_of_gaussians", "d = mean1 - mean2\nreturn d @ d + torch.trace(cov1 + cov2 - 2 * cov1 @ cov2)", "no_root"),
    ("frechet_of_gaussians", "d = mean1 - mean2\nreturn d @ d + torch.trace(cov1 + cov2 - 2 * (cov1 @ cov2).sqrt())", "elementwise_root"),
    ("frechet_of_gaussians", "d = mean1 - mean2\ns1, s2 = cov1.diagonal().sqrt(), cov2.diagonal().sqrt()\nreturn d @ d + ((s1 - s2) ** 2).sum()", "diagonal_only"),
    ("frechet_of_gaussians", "d = mean1 - mean2\nr1, r2 = (torch.from_numpy(scipy.linalg.sqrtm(c.numpy()).real) for c in (cov1, cov2))\nreturn d @ d + torch.trace(cov1 + cov2 - 2 * r1 @ r2)", "roots_multiplied"),
    ("frechet_of_gaussians", "d = mean1 - mean2\nreturn d @ d + torch.linalg.matrix_norm(cov1 - cov2) ** 2", "difference_of_covariances"),
    # 8.4
    ("frechet_limit", "np.polyfit(sizes.numpy(), distances.numpy(), 1)[1]", "against_n"),
    ("frechet_limit", "np.polyfit(1 / sizes.double().numpy(), distances.numpy(), 1)[0]", "returned_slope"),
    ("frechet_limit", "np.polyfit(1 / sizes.double().sqrt().numpy(), distances.numpy(), 1)[1]", "root_n"),
    ("frechet_limit", "distances[-1].item()", "largest_only"),
    ("frechet_limit", "min(distances)", "smallest_distance"),
    ("frechet_limit", "sum(distances) / len(distances)", "averaged"),
    ("frechet_limit", X + "slope = (y[-1] - y[0]) / (x[-1] - x[0])\nreturn y[0] - slope * x[0]", "two_points"),
    # 8.5
    ("nearest", "d = samples[:, None] - training[None]\nreturn (d ** 2).flatten(2).sum(2).argmin(1)", "bytes_wrap"),
    ("nearest", "d = (samples[:, None] - training[None]).float()\nreturn (d ** 2).flatten(2).sum(2).argmin(1)", "bytes_wrap"),
    ("nearest", AB + "return torch.cdist(a, b).argmax(dim=1)", "farthest"),
    ("nearest", AB + "return torch.cdist(a, b).argmin(dim=0)", "other_way"),
    ("nearest", AB + "return torch.cdist(a, b, p=1).argmin(dim=1)", "absolute"),
    ("nearest", AB + "return torch.cdist(a, b, p=float('inf')).argmin(dim=1)", "largest_difference"),
    ("nearest", AB + "return torch.argmax(a @ b.T, dim=1)", "inner_product"),
    ("nearest", AB + "return ((a @ b.T) / a.norm(dim=1)[:, None] / b.norm(dim=1)).argmax(1)", "cosine"),
    ("nearest", AB + "return (a.mean(1)[:, None] - b.mean(1)).abs().argmin(1)", "signed"),
    ("nearest", AB + "return torch.cdist(a, b).min(dim=1).values", "distances"),
    # 8.6
    ("count_scores", E + "return (counts - expected) / expected.sqrt()", "poisson"),
    ("count_scores", E + "return (counts - expected) / (expected * (1 - shares))", "divided_by_variance"),
    ("count_scores", E + "return counts - expected", "not_divided"),
    ("count_scores", E + "return counts / expected - 1", "relative"),
    ("count_scores", E + "return (expected - counts) / (expected * (1 - shares)).sqrt()", "sign"),
    ("count_scores", E + "return abs(counts - expected) / (expected * (1 - shares)).sqrt()", "absolute"),
    ("count_scores", E + "return (counts - expected) ** 2 / expected", "squared"),
    ("count_scores", E + "return (counts - expected) / (shares * (1 - shares) / n).sqrt()", "of_the_shares"),
    ("count_scores", "n, k = counts.sum(), len(counts)\nreturn (counts - n / k) / (n / k * (1 - 1 / k)) ** 0.5", "equal_shares"),
    ("count_scores", E + "return (counts - expected) / counts.float().std()", "spread_of_counts"),
    ("count_scores", E + "p = counts / n\nreturn (counts - expected) / (n * p * (1 - p)).sqrt()", "observed_share"),
]  # fmt: skip

LOCATED = [
    ("bits_per_dimension", "-nats / math.prod(shape)"),
    ("bits_per_dimension", "nats / (784 * math.log(2))"),
    ("step_bits", SNR + "return (snr[t] - snr[t - 1]) * error"),
    ("step_bits", SNR + "return (snr[t - 1] - snr[t]) * error / (2 * math.log(2)) + 0.1"),
    ("frechet_of_gaussians", ROOT + "return d.norm() + cov1.trace() + cov2.trace() + 2 * cross"),
    ("frechet_of_gaussians", ROOT + "return 2 * (d @ d) + cov1.trace() + cov2.trace() - 2 * cross"),
    ("frechet_limit", "np.polyfit(1 / sizes.double().numpy() ** 2, distances.numpy(), 1)[1]"),
    ("frechet_limit", "np.polyfit(1 / sizes.double().numpy(), distances.numpy(), 1)[1] + 0.01"),
    ("nearest", AB + "return torch.cdist(a, b).argmin(dim=1) + 1"),
    ("nearest", "torch.zeros(len(samples), dtype=torch.int64)"),
    ("count_scores", E + "return 2 * (counts - expected) / (expected * (1 - shares)).sqrt()"),
    ("count_scores", E + "return (expected - counts) / expected.sqrt()"),
]

RIGHT = [
    # 8.1
    ("bits_per_dimension", "nats / math.log(2) / math.prod(shape)"),
    ("bits_per_dimension", "nats * math.log2(math.e) / np.prod(shape)"),
    ("bits_per_dimension", "D = 1\nfor side in shape:\n    D = D * side\nreturn nats / np.log(2) / D"),
    ("bits_per_dimension", "D = torch.ones(shape).numel()\nreturn nats / D / torch.log(torch.tensor(2.0, dtype=torch.float64))"),
    ("bits_per_dimension", "n = nats if torch.is_tensor(nats) else torch.tensor(nats)\nreturn torch.stack([x / torch.Size(shape).numel() / math.log(2) for x in n.flatten()]).reshape(n.shape)"),
    # 8.2
    ("step_bits", "a = schedule.alpha_bar\nreturn 0.5 * (a[t - 1] / (1 - a[t - 1]) - a[t] / (1 - a[t])) * error / math.log(2)"),
    ("step_bits", "a, b = schedule.alpha_bar, schedule.beta\nv = b[t] * (1 - a[t - 1]) / (1 - a[t])\nc = a[t - 1].sqrt() * b[t] / (1 - a[t])\nreturn c ** 2 * error / (2 * v) / math.log(2)"),
    ("step_bits", "a, b = schedule.alpha_bar, schedule.beta\nreturn a[t - 1] * b[t] / ((1 - a[t]) * (1 - a[t - 1])) * error / math.log(4)"),
    ("step_bits", "snr = 1 / (1 / schedule.alpha_bar[1:] - 1)\ndrop = snr[:-1] - snr[1:]\nreturn drop[t - 2] / 2 * error.double() * math.log2(math.e)"),
    ("step_bits", "snr = lambda s: schedule.alpha_bar[s] / (1 - schedule.alpha_bar[s])\nif isinstance(t, int):\n    t = torch.full((len(error),), t)\nreturn torch.stack([(snr(int(i) - 1) - snr(int(i))) * e / 2 / math.log(2) for i, e in zip(t, error)])"),
    # 8.3
    ("frechet_of_gaussians", "c = scipy.linalg.sqrtm((cov1 @ cov2).numpy() + 1e-12 * np.eye(len(mean1))).real\nreturn ((mean1 - mean2) ** 2).sum().item() + float(np.trace(cov1.numpy() + cov2.numpy() - 2 * c))"),
    ("frechet_of_gaussians", "l = torch.linalg.eigvals(cov1 @ cov2).real.clamp(min=0)\nd = mean1 - mean2\nreturn d @ d + torch.trace(cov1 + cov2) - 2 * l.sqrt().sum()"),
    ("frechet_of_gaussians", "def root(c):\n    l, v = torch.linalg.eigh(c)\n    return v @ torch.diag(l.clamp(min=0).sqrt()) @ v.T\nr = root(cov1)\nm = root((r @ cov2 @ r + (r @ cov2 @ r).T) / 2)\nreturn (mean1 - mean2).pow(2).sum() + torch.trace(cov1 + cov2 - 2 * m)"),
    ("frechet_of_gaussians", "def root(c):\n    u, s, vt = np.linalg.svd(c.numpy())\n    return u @ np.diag(np.sqrt(s)) @ vt\nnuclear = np.linalg.svd(root(cov1) @ root(cov2), compute_uv=False).sum()\nreturn np.square((mean1 - mean2).numpy()).sum() + np.trace(cov1.numpy()) + np.trace(cov2.numpy()) - 2 * nuclear"),
    ("frechet_of_gaussians", ROOT + "return float(d @ d) + float(cov1.diagonal().sum() + cov2.diagonal().sum()) - 2 * float(cross)"),
    # 8.4
    ("frechet_limit", "np.polyfit(1 / sizes.double().numpy(), distances.numpy(), 1)[-1]"),
    ("frechet_limit", X + "slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()\nreturn y.mean() - slope * x.mean()"),
    ("frechet_limit", X + "A = torch.stack([x, torch.ones_like(x)], 1)\nreturn torch.linalg.solve(A.T @ A, A.T @ y)[1].item()"),
    ("frechet_limit", X + "n = len(x)\nreturn (y.sum() * (x * x).sum() - x.sum() * (x * y).sum()) / (n * (x * x).sum() - x.sum() ** 2)"),
    ("frechet_limit", X + "c = torch.cov(torch.stack([x, y]))\nreturn float(y.mean() - c[0, 1] / c[0, 0] * x.mean())"),
    # 8.5
    ("nearest", AB + "return torch.cdist(a, b).argmin(1)"),
    ("nearest", "return torch.stack([((x.float() - training.float()) ** 2).flatten(1).sum(1).argmin() for x in samples])"),
    ("nearest", AB + "return ((a[:, None] - b) ** 2).mean(2).sqrt().min(dim=1).indices"),
    ("nearest", "d = samples[:, None].int() - training[None].int()\nreturn d.pow(2).sum((2, 3, 4)).topk(1, largest=False).indices[:, 0]"),
    ("nearest", AB + "return (2 * a @ b.T - (b * b).sum(1)).argmax(1)"),
    ("nearest", "a, b = samples.numpy().reshape(len(samples), -1).astype(int), training.numpy().reshape(len(training), -1).astype(int)\nreturn torch.tensor([int(((x - b) ** 2).sum(1).argmin()) for x in a])"),
    # 8.6
    ("count_scores", E + "return (counts - expected) / torch.sqrt(expected * (1 - shares))"),
    ("count_scores", "n = counts.sum().item()\nd = torch.distributions.Binomial(n, shares)\nreturn (counts - d.mean) / d.stddev"),
    ("count_scores", "n = int(counts.sum())\nreturn torch.stack([(c - n * p) / (n * p * (1 - p)) ** 0.5 for c, p in zip(counts, shares)])"),
    ("count_scores", "n = counts.double().sum()\nreturn (counts / n - shares) / (shares * (1 - shares) / n).sqrt()"),
    ("count_scores", "c, p = counts.numpy(), shares.numpy()\nreturn torch.from_numpy((c - c.sum() * p) / np.sqrt(c.sum() * p * (1 - p)))"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "mistake"), WRONG)
def test_the_mistake_is_named(name, body, mistake):
    verdict = judge(name, body)
    assert (verdict.status, verdict.mistake) == ("wrong", mistake), verdict.text


@pytest.mark.parametrize(("name", "body"), LOCATED)
def test_two_mistakes_at_once_are_located_and_not_misnamed(name, body):
    verdict = judge(name, body)
    assert verdict.status == "wrong" and verdict.mistake is None and verdict.problem, verdict.text


@pytest.mark.parametrize(("name", "body"), RIGHT)
def test_right_answers_of_every_structure_pass(name, body):
    verdict = judge(name, body)
    assert verdict.solved, verdict.text


def test_every_exercise_has_five_right_answers_and_most_mistakes_are_typed():
    """Five structures each, and at least two thirds of every catalogue."""
    for exercise in checks.EXERCISES:
        if exercise.lesson != "08":
            continue
        assert sum(name == exercise.name for name, _ in RIGHT) >= 5
        typed = {mistake for name, _, mistake in WRONG if name == exercise.name}
        assert len(typed) >= 2 / 3 * len(exercise.mistakes), exercise.name
