"""The benchmark: its rows measure the networks that they name, and its adapters mean what ours mean."""

import importlib
import inspect
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from ddpm_course import training
from ddpm_course.classroom import editions
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.samplers import sample
from ddpm_course.schedules import cosine_schedule
from ddpm_course.toy import Mixture, oracle

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench  # noqa: E402
import measure  # noqa: E402
import peer_annotated  # noqa: E402
import peer_diffusers  # noqa: E402
import peer_smalldiffusion  # noqa: E402

STORED = bench.read()
PACKAGES = {"annotated": "denoising_diffusion_pytorch", "diffusers": "diffusers", "smalldiffusion": "smalldiffusion"}


def module(function) -> nn.Module:
    """Someone else's network, in place of a trained one."""
    net = nn.Module()
    net.forward = function
    return net


def test_our_row_has_lesson_00s_network_and_keywords_that_train_takes():
    net, diffusion, keywords = measure.lesson_00()
    assert sum(p.numel() for p in net.parameters()) == STORED["ours"]["parameters"] and net.num_classes == 10
    inspect.signature(training.train).bind(net, diffusion, torch.zeros(2), None, minutes=4, **keywords)  # or it raises


@pytest.mark.parametrize("name", PACKAGES)
def test_a_peers_row_has_its_network_which_takes_our_calls(name):
    pytest.importorskip(PACKAGES[name])
    net = importlib.import_module(f"peer_{name}").build(cosine_schedule(1000)).eval()
    assert sum(p.numel() for p in net.parameters()) == STORED[name]["parameters"]
    with torch.no_grad():
        out = net(torch.randn(2, 1, 28, 28), torch.tensor([1, 1000]))
    assert out.shape == (2, 1, 28, 28) and out.isfinite().all()


@pytest.mark.parametrize(
    ("peer", "scheduler"),
    [(peer_annotated, DDPMScheduler(300, clip_sample=False)), (peer_diffusers, DDPMScheduler(1000))],
)
def test_peers_that_count_from_0_sample_as_they_do_alone(peer, scheduler):
    """diffusers' scheduler, which counts from 0 too, against our tables behind the adapter, and the first's sampler."""
    unet = module(lambda x, time: torch.tanh(x + time.reshape(-1, 1, 1, 1) / 50))  # tells a time from the next
    net = peer.FromZero(unet)
    torch.manual_seed(0)
    x = torch.randn(2, 1, 4, 4)
    for i in scheduler.timesteps:
        step = scheduler.step(unet(x, i), i, x)
        estimate, _ = peer.DIFFUSION.decode(net(x, i.expand(2) + 1), x, i.expand(2) + 1)
        assert (estimate.clamp(-1, 1) - step.pred_original_sample.clamp(-1, 1)).abs().max() < 1e-4
        x = step.prev_sample
    if peer is peer_annotated:
        torch.manual_seed(0)
        _, total, steps = peer.sampler(net, x.shape)
        assert total == 300
        assert (sample(steps, progress=False) - x).abs().max() < 1e-3  # float32, 300 steps, |x| up to about 10


@pytest.mark.parametrize("schedule", [peer_smalldiffusion.DIFFUSION.schedule, cosine_schedule(1000)])
def test_smalldiffusion_adapter_hands_over_sigma_and_the_unscaled_image(schedule):
    """For Gaussian data of deviation s, E[noise | x_0 + sigma noise] = sigma x / (s^2 + sigma^2)."""
    s, g = 0.5, torch.Generator().manual_seed(2)
    mixture = Mixture(torch.ones(1), torch.zeros(1, 1, 4, 4), torch.full((1,), s))
    x0, t = mixture.sample(5, generator=g), torch.tensor([1, 2, 100, 500, schedule.T])
    xt = q_sample(schedule, x0, t, torch.randn(x0.shape, generator=g))
    net = peer_smalldiffusion.FromSigma(module(lambda x, sigma: sigma * x / (s**2 + sigma**2)), schedule)
    exact = oracle(mixture, GaussianDiffusion(schedule, "noise"))(xt, t)
    assert (net(xt, t) - exact).abs().max() < 1e-4
    assert (net(xt, (t + 1).clamp(max=schedule.T)) - exact).abs().max() > 1e-3  # the test can fail


@pytest.mark.parametrize("name", ["ours", "ours, no labels", "diffusers"])
def test_a_row_has_everything_and_an_interrupted_run_goes_on(name, monkeypatch, tmp_path):
    """With hardly any training and few samples; the numbers mean nothing."""
    monkeypatch.setenv("DDPM_COURSE_FAST", "1")
    images = torch.randint(0, 256, (80, 1, 28, 28), dtype=torch.uint8)
    small = dict(
        SAMPLES=70, DDIM_STEPS=2, SHAPE=(2, 1, 28, 28), TIMED_STEPS=3, TRIAL=4, PACE_SECONDS=0,
        matrix_rate=lambda device: 1e11, load_images=lambda split="train": (images, torch.arange(80) % 10),
    )  # fmt: skip
    for constant, value in small.items():
        monkeypatch.setattr(measure, constant, value)
    monkeypatch.setattr(peer_diffusers, "BATCH", 8)
    monkeypatch.setattr(bench, "measure", partial(measure.row, minutes=1e-4))
    monkeypatch.setattr(bench, "JOBS", [name])
    bench.run([], tmp_path / "results.json")
    (row,) = json.loads((tmp_path / "results.json").read_text())
    assert row.keys() == STORED[name].keys()
    assert row["frechet"] > 0 and row["images"] > 0 and "steps" in row["sampler"]
    monkeypatch.setattr(bench, "measure", pytest.fail)
    bench.run([], tmp_path / "results.json")  # nothing is left to do


def test_operations_are_counted():
    net = module(lambda x, t: nn.functional.scaled_dot_product_attention(*[layer(x).flatten(2).mT] * 3))
    layer = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    convolution, attention = 2 * 9 * 8 * 784, 2 * 2 * 8 * 784**2
    assert measure.flops(net, torch.device("cpu")) == convolution + attention


def test_stored_results_are_those_of_the_readme():
    assert list(STORED) == bench.JOBS and len({(row["machine"], row["minutes"]) for row in STORED.values()}) == 1
    readme, assets = ((editions.ROOT / path).read_text(encoding="utf-8") for path in ("README.md", "assets/README.md"))
    assert all(table in readme for table in bench.markdown(STORED).split("\n\n"))
    assert bench.markdown({"curve": STORED["curve"]}) in assets
