"""The benchmark's adapters: other packages' networks and samplers mean what ours mean."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from ddpm_course.classroom import editions
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.samplers import sample
from ddpm_course.schedules import cosine_schedule
from ddpm_course.toy import Mixture, oracle

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
bench, doctor, *PEERS = map(
    importlib.import_module, ("bench", "doctor", "peer_annotated", "peer_diffusers", "peer_smalldiffusion")
)
ANNOTATED, DIFFUSERS, SMALLDIFFUSION = PEERS


def module(function) -> nn.Module:
    """Someone else's network, in place of a trained one."""
    net = nn.Module()
    net.forward = function
    return net


@pytest.mark.parametrize(
    ("peer", "scheduler"),
    [(ANNOTATED, DDPMScheduler(300, clip_sample=False)), (DIFFUSERS, DDPMScheduler(1000))],
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
    if peer is ANNOTATED:
        torch.manual_seed(0)
        _, total, steps = peer.sampler(net, x.shape)
        assert total == 300
        assert (sample(steps, progress=False) - x).abs().max() < 1e-3  # float32, 300 steps, |x| up to about 10


@pytest.mark.parametrize("schedule", [SMALLDIFFUSION.DIFFUSION.schedule, cosine_schedule(1000)])
def test_smalldiffusion_adapter_hands_over_sigma_and_the_unscaled_image(schedule):
    """For Gaussian data of deviation s, E[noise | x_0 + sigma noise] = sigma x / (s^2 + sigma^2)."""
    s, g = 0.5, torch.Generator().manual_seed(2)
    mixture = Mixture(torch.ones(1), torch.zeros(1, 1, 4, 4), torch.full((1,), s))
    x0, t = mixture.sample(5, generator=g), torch.tensor([1, 2, 100, 500, schedule.T])
    xt = q_sample(schedule, x0, t, torch.randn(x0.shape, generator=g))
    net = SMALLDIFFUSION.FromSigma(module(lambda x, sigma: sigma * x / (s**2 + sigma**2)), schedule)
    exact = oracle(mixture, GaussianDiffusion(schedule, "noise"))(xt, t)
    assert (net(xt, t) - exact).abs().max() < 1e-4
    assert (net(xt, (t + 1).clamp(max=schedule.T)) - exact).abs().max() > 1e-3  # the test can fail


def test_stored_results_are_those_of_the_pages():
    stored = bench.read()
    assert list(stored) == bench.JOBS
    for lessons in (True, False):  # a table each
        names = [name for name in stored if (name in bench.LESSONS) == lessons]
        assert len({(stored[name]["machine"], stored[name]["minutes"]) for name in names}) == 1
    pages = ("README.md", "assets/README.md", "tests/benchmarks/README.md")
    readme, assets, beside = ((editions.ROOT / page).read_text(encoding="utf-8") for page in pages)
    curve, rows = (
        stored.pop("curve"),
        ("ours", "ours, clusters", "ours, no labels", "annotated", "annotated, our recipe"),
    )
    distances = [f"{stored[name]['frechet']:.1f}" for name in rows]
    distances += [f"{curve['values'][name]['25'][0]:.2f}" for name in ("ancestral, β̃", "DDIM, guidance 1.2")]
    assert re.findall(r"^\| .+ minutes.* \| ([\d.]+) \|$", readme, flags=re.MULTILINE) == distances
    assert bench.markdown({"curve": curve}) in assets
    assert all(table in beside for table in bench.markdown(stored).split("\n\n"))


def test_the_doctor_names_nothing_on_healthy_networks_of_others_and_finds_what_is_wrong():
    """As it was recorded; the page shows the same."""
    stored = doctor.read()
    assert list(stored) == doctor.ROWS and "start of t" not in stored["annotated"]["unjudged"]
    for name, entry in stored.items():
        truly = ["signal left at T", "error by t"] if name.endswith(doctor.OWN) else []  # the page says why
        assert entry["healthy"] == truly
        for mistake, named in entry["mistakes"].items():
            if "counts" in mistake:  # it may say that it can't judge whether t is one off
                assert named == truly + ["start of t"] * ("start of t" not in entry["unjudged"])
            else:
                assert 1 <= len(named) <= 2, mistake
    assert doctor.markdown(stored) in (editions.ROOT / "tests" / "benchmarks" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("peer", ["annotated", "diffusers", "smalldiffusion"])
def test_small_relatives_of_the_peers_keep_the_shape_and_tell_times_apart(peer):
    torch.manual_seed(0)
    net = importlib.import_module(f"peer_{peer}").build(cosine_schedule(1000), **doctor.WIDTHS[peer]).eval()
    for parameter in net.parameters():  # some begin with zeros at the end
        nn.init.normal_(parameter, std=0.05)
    x, t = torch.randn(3, 1, doctor.SIZE, doctor.SIZE), torch.tensor([1, 500, 1000])
    told = doctor.Told(net, 1, 1000)
    with torch.no_grad():
        assert net(x, t).shape == x.shape
        assert torch.equal(told(x, t), net(x, torch.tensor([2, 501, 1000]))) and not torch.equal(told(x, t), net(x, t))
