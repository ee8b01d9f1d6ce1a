"""A healthy model whose exact answer is known, and what a student does to it: for the tests of the doctor.

Every mistake changes what `examine` is given, as working code would with that line wrong. None of them says its name.
"""

import copy
import functools
import math
from itertools import pairwise

import torch
from torch import nn

from ddpm_course.data import load_images
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.losses import diffusion_loss
from ddpm_course.pixels import to_unit_range
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule
from ddpm_course.toy import ring
from ddpm_course.training import EMA
from ddpm_course.training.checkpoints import load_pretrained

STD = 0.06
load = functools.cache(load_images)


class Exact(nn.Module):
    """E[target | x_t, y] for pictures that are one of `means` plus noise of STD; y=None is any of them."""

    num_classes = 10

    def __init__(self, means, classes, diffusion):
        super().__init__()
        self.means, self.classes, self.diffusion = means, classes, diffusion

    def forward(self, x, t, y=None):
        shape, x = x.shape, x.flatten(1).double()
        means = self.means.flatten(1).double()
        level = self.diffusion.schedule.alpha_bar.double()[t][:, None]
        variance = level * STD**2 + 1 - level
        scores = -self._distances(x, level, means) / (2 * variance)
        if y is not None:
            known = y < self.num_classes
            other = self.classes[None] != y[:, None]
            scores = scores.masked_fill(other & known[:, None], -torch.inf)
        gain = level.sqrt() * STD**2 / variance
        x0 = gain * x + (1 - gain * level.sqrt()) * (scores.softmax(1) @ means)
        noise = (x - level.sqrt() * x0) / (1 - level).clamp(min=1e-12).sqrt()
        answers = {"x0": x0, "noise": noise, "v": level.sqrt() * noise - (1 - level).sqrt() * x0}
        return answers[self.diffusion.predicts].reshape(shape).float()

    @staticmethod
    def _distances(x, level, means):
        return x.square().sum(1, keepdim=True) - 2 * level.sqrt() * x @ means.T + level * means.square().sum(1)


@functools.cache
def healthy(predicts="v", maker=cosine_schedule, T=1000, colour=False):
    """What `examine` takes: garments of 14 x 14 in ten classes, in orange where they are in colour."""
    images, labels = load("bundled")
    rows = torch.cat([(labels == k).nonzero().flatten()[:6] for k in range(10)])
    means = 0.85 * nn.functional.avg_pool2d(to_unit_range(images[rows]), 2)  # room for the noise within [-1, 1]
    if colour:
        means = (means + 0.85) * torch.tensor([1.0, 0.6, 0.2])[:, None, None] - 0.85
    generator = torch.Generator().manual_seed(0)
    pick = torch.randint(len(rows), (1500,), generator=generator)
    data = means[pick] + STD * torch.randn(1500, *means.shape[1:], generator=generator)
    diffusion = GaussianDiffusion(maker(T), predicts)
    net = Exact(means, labels[rows], diffusion)
    return dict(net=net, diffusion=diffusion, images=data, labels=labels[rows][pick])


def chain(
    net, diffusion, n=96, steps=50, *, draw=torch.randn, last=False, large=False, std=math.sqrt, stop=0,
    seed=0,
):  # fmt: skip
    """The ancestral sampler written out, with a place for each mistake. (n, 1, 14, 14)"""
    torch.manual_seed(seed)
    shape = (n, *net.means.shape[1:])
    level = diffusion.schedule.alpha_bar
    x = draw(shape)
    T = diffusion.schedule.T
    y = torch.arange(n) % 10
    for t, s in pairwise([round(T * (steps - i) / steps) for i in range(steps + 1)]):
        if t <= stop:
            break
        output = net(x, torch.full((n,), t), y)
        x0 = diffusion.decode(output, x, t)[0].clamp(-1, 1)
        alpha = level[t] / level[s]
        a = math.sqrt(level[s]) * (1 - alpha) / (1 - level[t])
        b = math.sqrt(alpha) * (1 - level[s]) / (1 - level[t])
        variance = 1 - alpha if large else (1 - alpha) * (1 - level[s]) / (1 - level[t])
        x = a * x0 + b * x
        if s or last:
            x = x + std(variance) * draw(shape)
    return x.float()


def curve(patient, *, end=None, start=1.0, steps=400):
    """A loss curve as one sees it: down from 1 to what the network reaches, with the scatter of batches."""
    end = level(patient) if end is None else end
    generator = torch.Generator().manual_seed(1)
    i = torch.arange(steps)
    return (end + (start - end) * torch.exp(-i / (steps / 12))) * (1 + 0.1 * torch.randn(steps, generator=generator))


def level(patient):
    x0, diffusion = patient["images"][:600], patient["diffusion"]
    t = diffusion.schedule.sample_t(600, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    signal, sigma = diffusion.schedule.q_coefficients(t, x0)
    output = patient["net"](signal * x0 + sigma * noise, t, patient["labels"][:600])
    return float((output - diffusion.target(x0, noise, t)).square().mean())


class Around(nn.Module):
    """A network with something wrong around it."""

    num_classes = 10

    def __init__(self, net, forward):
        super().__init__()
        self.net, self.change = net, forward

    def forward(self, x, t, y=None):
        return self.change(self.net, x, t, y)


def around(forward, **options):
    """The healthy model, called wrongly."""

    def patient():
        model = healthy(**options)
        return model | dict(net=Around(model["net"], forward))

    return patient


def data(change):
    return lambda: healthy() | dict(images=change(healthy()["images"]))


def scheduled(betas=None, **tables):
    """A model made with a schedule of one's own, from beta or with tables that were computed wrongly."""

    def patient():
        schedule = Schedule(betas()) if betas else linear_schedule(1000)
        for name, make in tables.items():
            setattr(schedule, name, make(schedule))
        model, diffusion = healthy(), GaussianDiffusion(schedule, "v")
        return model | dict(diffusion=diffusion, net=Exact(model["net"].means, model["net"].classes, diffusion))

    return patient


def sampled(change=None, colour=False, model="v", **mistakes):
    def patient():
        well = healthy(model, colour=colour)
        samples = chain(well["net"], well["diffusion"], **mistakes)
        return well | dict(samples=change(samples) if change else samples)

    return patient


def trained(change):
    return lambda: healthy() | dict(losses=change(curve(healthy())))


@functools.cache
def garments():
    """The bundled network."""
    net, diffusion, _ = load_pretrained("cpu")
    images, labels = load("bundled")
    return dict(net=net, diffusion=diffusion, images=images[:3000], labels=labels[:3000])


class Small(nn.Module):
    """A network for points in the plane, which learns its task in seconds."""

    num_classes = 8

    def __init__(self):
        super().__init__()
        self.time, self.point = nn.Linear(64, 64), nn.Linear(2, 64)
        self.label = nn.Embedding(self.num_classes + 1, 64)
        self.inside = nn.Sequential(
            nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x, t, y=None):
        y = torch.full_like(t, self.num_classes) if y is None else y
        return self.inside(self.point(x) + self.time(sines(t, 64)) + self.label(y))


@functools.cache
def small(steps=800, shuffled=False):
    """The small network trained on a ring of eight blobs, with their labels or with anybody's. `net` has averaged
    weights; `unwarmed` an average with a memory of 10,000 steps from the first one on."""
    torch.manual_seed(0)
    net, diffusion, mixture = Small(), GaussianDiffusion(cosine_schedule(1000), "v"), ring()
    points = mixture.sample(4000)
    labels = torch.cdist(points, mixture.means).argmin(1)
    labels = labels[torch.randperm(len(labels))] if shuffled else labels
    optimizer, average, unwarmed = torch.optim.Adam(net.parameters()), EMA(net, 0.99), copy.deepcopy(net)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / steps)
        rows = torch.randint(len(points), (256,))
        y = torch.where(torch.rand(256) < 0.1, net.num_classes, labels[rows])
        loss = diffusion_loss(net, diffusion, points[rows], y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(net)
        with torch.no_grad():
            for ours, new in zip(unwarmed.parameters(), net.parameters(), strict=True):
                ours.lerp_(new, 1e-4)
        losses.append(loss.item())
    model = dict(
        net=average.net.eval(), diffusion=diffusion, images=points, labels=labels, losses=losses, raw=net.eval()
    )
    return model, unwarmed.eval()


class Coded(nn.Module):
    """The small network with other codes of t going into its first layer."""

    num_classes = 8

    def __init__(self, net, code):
        super().__init__()
        self.net, self.code = copy.deepcopy(net), code
        self.t = None
        self.net.time.register_forward_pre_hook(lambda _, given: (self.code(self.t, given[0].shape[1]),))

    def forward(self, x, t, y=None):
        self.t = t
        return self.net(x, t, y)


def coded(code):
    return lambda: small()[0] | dict(net=Coded(small()[0]["net"], code))


def sines(t, width):
    angle = t[:, None].float() * 10_000.0 ** (-torch.arange(width // 2) / (width // 2))
    return torch.cat([angle.sin(), angle.cos()], 1)


def over_rows(t, width):
    """Even and odd of the rows of a table, not of its features."""
    table = torch.arange(1001)[:, None].float() * 10_000.0 ** (-torch.arange(width) / width)
    table[0::2], table[1::2] = table[0::2].sin(), table[1::2].cos()
    return table[t]


def fresh():
    torch.manual_seed(1)
    return small()[0] | dict(net=Small().eval(), raw=None, labels=None, losses=None)


def with_dropout(net, x, t, y):
    return nn.functional.dropout(net(x, t, y), 0.1, training=True)


def normalised_over_the_batch(net, x, t, y):
    return net(x, t, y) * net.means.std() / x.std(0, keepdim=True, unbiased=False).mean().clamp(min=0.05)


def null_class_is_random(net, x, t, y):
    if y is None:
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return net(x, t, y)


def unrelated_codes(net, x, t, y):
    scatter = torch.randperm(1001, generator=torch.Generator().manual_seed(0)) // 3 + t.new_zeros(1)
    return net(x, ((t // 3) * 3 + scatter[t] % 331 - 165).clamp(1, 1000), y)


def other_prediction(trained_as, read_as):
    def patient():
        model = healthy(trained_as)
        return model | dict(diffusion=GaussianDiffusion(model["diffusion"].schedule, read_as))

    return patient


def other_schedule():
    return healthy() | dict(diffusion=GaussianDiffusion(linear_schedule(1000), "v"))


def relabelled(change):
    return lambda: healthy() | dict(labels=change(healthy()["labels"]))


def drifting(*error):
    """Pictures of independent pixels, whose network is a multiple of x, with a small error for each channel at every t."""

    def v(_, x, t, y):
        level = cosine_schedule(1000).alpha_bar[t].reshape(-1, 1, 1, 1)
        multiple = (level * (1 - level)).sqrt() * (1 - 0.3**2) / (level * 0.3**2 + 1 - level)
        return (multiple * x + torch.tensor(error)[:, None, None]).float()

    images = 0.3 * torch.randn(800, len(error), 8, 8, generator=torch.Generator().manual_seed(0))
    return lambda: dict(net=Around(None, v), diffusion=GaussianDiffusion(cosine_schedule(1000), "v"), images=images)


def jump(losses):
    losses = losses.clone()
    losses[250:330] *= 4
    return losses


def diverging(losses):
    return losses * torch.exp((torch.arange(len(losses)) / len(losses) - 0.5).clamp(min=0) * 6)


def broken_at(place, value):
    def change(x):
        x = x.clone()
        x[place:] = value
        return x

    return change


def wrapped(x):
    """Bytes without a clamp, from samples that were not clipped and a little too strong."""
    return ((x * 1.2 + 1) * 127.5).round().long().remainder(256).to(torch.uint8)


# The mistake, and the probe that must name it.
MISTAKES = {
    # lesson 01: the data
    "data in [0, 1]": (data(lambda x: (x.clamp(-1, 1) + 1) / 2), "range of the data"),
    "data 0…255 as floats": (data(lambda x: (x.clamp(-1, 1) + 1) * 127.5), "range of the data"),
    "data divided as integers": (data(lambda x: ((x.clamp(-1, 1) + 1) * 127.5) // 127.5 - 1), "range of the data"),
    "data divided by 255 twice": (data(lambda x: (x + 1) / 2 / 255), "range of the data"),
    "data in [-0.5, 0.5]": (data(lambda x: x.clamp(-1, 1) / 2), "range of the data"),
    "data standardised": (data(lambda x: (x - x.mean()) / x.std()), "range of the data"),
    "a picture of NaN": (data(broken_at(1499, math.nan)), "range of the data"),
    "floats cast to bytes": (data(lambda x: ((x.clamp(-1, 1) + 1) / 2).round().to(torch.uint8)), "range of the data"),
    # lessons 02 and 03: the schedule
    "beta of T = 1000 with T = 100": (scheduled(lambda: torch.linspace(1e-4, 0.02, 100)), "signal left at T"),
    "beta of T = 1000 with T = 400": (scheduled(lambda: torch.linspace(1e-4, 0.02, 400)), "signal left at T"),
    "beta backwards": (scheduled(lambda: torch.linspace(0.02, 1e-4, 1000)), "order of beta"),
    "five steps": (scheduled(lambda: torch.linspace(0.3, 0.99, 5)), "first step"),
    "alpha_bar in bfloat16": (scheduled(alpha_bar=lambda s: s.alpha_bar.bfloat16()), "tables of the schedule"),
    "alpha for alpha_bar": (scheduled(alpha_bar=lambda s: s.alpha.clone()), "tables of the schedule"),
    "alpha_bar from a sum": (scheduled(alpha_bar=lambda s: 1 - s.beta.cumsum(0)), "tables of the schedule"),
    "alpha_bar of beta": (scheduled(alpha_bar=lambda s: s.beta.cumprod(0)), "tables of the schedule"),
    "alpha_bar without its first entry": (
        scheduled(alpha_bar=lambda s: torch.cat([s.alpha_bar[1:], s.alpha_bar[-1:] / 2])), "tables of the schedule"),
    "alpha_bar with roots taken twice": (scheduled(alpha_bar=lambda s: s.alpha_bar.sqrt()), "tables of the schedule"),
    # lesson 04: the network
    "two channels come out": (around(lambda net, x, t, y: net(x, t, y).mean((2, 3))), "the answer"),
    "NaN at large t": (around(lambda net, x, t, y: net(x, t, y) / (t < 800).reshape(-1, 1, 1, 1)), "the answer"),
    "t as an image": (around(lambda net, x, t, y: net(x, t[:, None, None], y)), "the answer"),
    "dropout left on": (around(with_dropout), "the same answer twice"),
    "one t for the batch": (around(lambda net, x, t, y: net(x, t[:1].expand(len(t)), y)), "one item at a time"),
    "one label for the batch": (
        around(lambda net, x, t, y: net(x, t, y if y is None else y[:1].expand(len(y)))), "one item at a time"),
    "normalised over the batch": (around(normalised_over_the_batch), "one item at a time"),
    "t never arrives": (around(lambda net, x, t, y: net(x, torch.full_like(t, 400), y)), "use of t"),
    "codes over the rows": (coded(over_rows), "embedding of t"),
    "codes of t in (0, 1)": (coded(lambda t, width: sines(t / 1000, width)), "embedding of t"),
    "codes of t // 50": (coded(lambda t, width: sines(t // 50, width)), "embedding of t"),
    "neighbours have unrelated codes": (around(unrelated_codes), "neighbouring t"),
    # lessons 05 and 06: target and t
    "noise read as v": (other_prediction("noise", "v"), "what is predicted"),
    "v read as noise": (other_prediction("v", "noise"), "what is predicted"),
    "x_0 read as noise": (other_prediction("x0", "noise"), "what is predicted"),
    "noise read as x_0": (other_prediction("noise", "x0"), "what is predicted"),
    "the sign turned": (around(lambda net, x, t, y: -net(x, t, y)), "what is predicted"),
    "half the output": (around(lambda net, x, t, y: net(x, t, y) / 2), "what is predicted"),
    "t backwards": (around(lambda net, x, t, y: net(x, 1001 - t, y)), "t it is told"),
    "t a tenth": (around(lambda net, x, t, y: net(x, (t // 10).clamp(min=1), y)), "use of t"),
    "another schedule": (other_schedule, "t it is told"),
    "t counted from 0": (around(lambda net, x, t, y: net(x, t - 1, y)), "start of t"),
    "t one too late": (around(lambda net, x, t, y: net(x, (t + 1).clamp(max=1000), y)), "start of t"),
    "t counted from 0, noise": (around(lambda net, x, t, y: net(x, t - 1, y), predicts="noise"), "start of t"),
    "t counted from 0, garments": (
        lambda: garments() | dict(net=Around(garments()["net"], lambda net, x, t, y: net(x, t - 1, y))), "start of t"),
    "says nothing": (around(lambda net, x, t, y: 0.01 * net(x, t, y)), "error by t"),
    "random weights": (fresh, "error by t"),
    "trained on other images": (
        lambda: small()[0] | dict(images=0.5 * small()[0]["images"] + 0.3, labels=None), "error by t"),
    "labels never arrive": (around(lambda net, x, t, y: net(x, t, None)), "use of labels"),
    "labels shuffled": (
        relabelled(lambda y: y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]), "right labels"),
    "labels shuffled before the training": (lambda: small(shuffled=True)[0], "right labels"),
    "labels counted from 1": (relabelled(lambda y: (y + 1) % 10), "right labels"),
    "labels never dropped": (around(null_class_is_random), "no label"),
    # lesson 06: where sampling goes, although every answer that is looked at is right or nearly so
    "one t is NaN": (around(lambda net, x, t, y: net(x, t, y) * torch.where(t == 150, math.nan, 1.0)[:, None, None, None]), "a short sampling"),
    "a little too bright at every t": (drifting(-0.2), "a short sampling"),
    "a little too red at every t": (drifting(-0.25, 0.0, 0.25), "a short sampling"),
    # lesson 07: averages and losses
    "random weights in the average": (lambda: small()[0] | dict(net=small()[1]), "averaged weights"),
    "a loss that is NaN": (trained(broken_at(200, math.nan)), "losses"),
    "a negative loss": (trained(lambda x: -x), "losses"),
    "a sum for the mean": (trained(lambda x: x * 196), "level of the loss"),
    "a fresh noise in the loss": (trained(lambda x: curve(healthy(), end=0.97)), "level of the loss"),
    "too high a learning rate": (trained(diverging), "jumps of the loss"),
    "resumed without its optimizer": (trained(jump), "jumps of the loss"),
    "the losses of another network": (trained(lambda x: curve(healthy(), end=0.01)), "loss against the network"),
    # lesson 06: samples
    "noise in the last step": (sampled(last=True, large=True, steps=10), "noise in the samples"),
    "the loop ends early": (sampled(stop=100), "noise in the samples"),
    "samples divided by sqrt(alpha_bar) again": (sampled(lambda x: x / 0.5), "range of the samples"),
    "samples too strong": (sampled(lambda x: (x * 2).clamp(-1, 1)), "brightness of the samples"),
    "no noise in the steps": (sampled(std=lambda v: 0.0), "variety of the samples"),
    "the same noise for all": (
        sampled(draw=lambda shape: torch.randn(1, *shape[1:]).expand(shape)), "variety of the samples"),
    "one garment for all": (sampled(lambda x: x[:1] + 0.02 * (x - x[:1])), "variety of the samples"),
    "bytes without a clamp": (sampled(wrapped), "noise in the samples"),
    "samples in [0, 1]": (sampled(lambda x: (x.clamp(-1, 1) + 1) / 2), "range of the samples"),
    "samples washed out": (sampled(lambda x: x / 2), "brightness of the samples"),
    "samples of NaN": (sampled(broken_at(90, math.nan)), "range of the samples"),
    "blurred": (sampled(lambda x: nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)), "detail of the samples"),
    "colours the other way round": (sampled(lambda x: x.flip(1), colour=True), "tint of the samples"),
    "training images for samples": (lambda: healthy() | dict(samples=healthy()["images"][:40]), "copies of training images"),
}  # fmt: skip
