"""The benchmark: its adapters mean what ours mean, and an interrupted run goes on."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ddpm_course import training
from ddpm_course.diffusion import GaussianDiffusion, q_sample
from ddpm_course.editions import ROOT
from ddpm_course.samplers import ddim_steps, sample
from ddpm_course.schedules import cosine_schedule
from ddpm_course.toy import Mixture, oracle
from ddpm_course.unet import UNet

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench  # noqa: E402
import measure  # noqa: E402
import ours  # noqa: E402
import peer_annotated  # noqa: E402
import peer_smalldiffusion  # noqa: E402


class Calls(nn.Module):
    """A module that calls a function: someone else's network, in place of a trained one."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


def blobs(std: float = 0.2) -> Mixture:
    """Three points of the space of 1x4x4 images, with a little spread."""
    means = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    return Mixture(torch.tensor([0.2, 0.3, 0.5]), means, torch.full((3,), std))


def noisy(diffusion: GaussianDiffusion, mixture: Mixture, t: list[int]):
    """x_0, x_t and t for different t within a batch."""
    generator = torch.Generator().manual_seed(2)
    x0, t = mixture.sample(len(t), generator=generator), torch.tensor(t)
    return x0, q_sample(diffusion.schedule, x0, t, torch.randn(x0.shape, generator=generator)), t


# ---- ours ---------------------------------------------------------------------------------------------------------


def test_our_recipe_is_read_from_the_lesson_and_is_one_that_train_takes():
    net, diffusion, keywords = ours.lesson_00()
    assert isinstance(net, UNet) and net.num_classes == 10 and net.channels == 1
    assert isinstance(diffusion, GaussianDiffusion)
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    inspect.signature(training.train).bind(net, diffusion, images, None, minutes=4, **keywords)  # or it raises
    assert keywords.keys() <= inspect.signature(training.train).parameters.keys() - ours.NOT_RECIPE
    text, total, steps = ours.sampler(net, diffusion, (2, 1, 28, 28))
    assert str(total) in text and next(steps).n == total


# ---- the Annotated Diffusion Model --------------------------------------------------------------------------------


def test_the_annotated_models_sampler_is_the_articles():
    """Against the article's formulas, written with its tables, which count from 0."""
    T, shape = 300, (2, 1, 4, 4)
    betas = torch.linspace(0.0001, 0.02, T, dtype=torch.float64)
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])

    def network(x, time):  # any function that tells a time from the next
        return torch.tanh(x + time.reshape(-1, 1, 1, 1) / 50)

    torch.manual_seed(0)
    x = torch.randn(shape)
    for i in reversed(range(T)):
        noise = network(x, torch.full((2,), i))
        x = (x - betas[i] / (1 - alphas_cumprod[i]).sqrt() * noise) / (1 - betas[i]).sqrt()
        if i:
            x = x + (betas[i] * (1 - previous[i]) / (1 - alphas_cumprod[i])).sqrt() * torch.randn(shape)
        x = x.float()

    torch.manual_seed(0)
    _, total, steps = peer_annotated.sampler(peer_annotated.FromZero(Calls(network)), shape)
    assert total == T
    assert (sample(steps, progress=False) - x).abs().max() < 1e-3  # float32, 300 steps, |x| up to about 10


def test_the_annotated_models_training_step_lowers_its_huber_loss():
    net = peer_annotated.FromZero(Calls(lambda x, time: layer(x)))
    layer = net.layer = nn.Conv2d(1, 1, 3, padding=1)
    step, finish = peer_annotated.recipe(net, 100)
    before, x0 = layer.weight.clone(), torch.zeros(8, 1, 8, 8)
    for _ in range(100):
        step(x0)
    assert finish() is net
    assert layer.weight[0, 0, 1, 1] > before[0, 0, 1, 1] + 0.05  # with x_0 = 0, the noise is x_t, scaled


# ---- diffusers ----------------------------------------------------------------------------------------------------


def test_diffusers_estimates_the_same_x0_at_the_same_time():
    """The scheduler that counts from 0 and our tables, on the output of one network through the adapter."""
    diffusers, peer = pytest.importorskip("diffusers"), pytest.importorskip("peer_diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    scheduler, net = diffusers.DDPMScheduler(num_train_timesteps=1000), peer.FromZero(unet)
    for t in (1, 2, 500, 999, 1000):
        x = torch.randn(2, 1, 8, 8)
        with torch.no_grad():
            output = net(x, torch.full((2,), t))
            theirs = scheduler.step(unet(x, t - 1).sample, t - 1, x).pred_original_sample
            mine, _ = peer.DIFFUSION.decode(output, x, t)
        assert (mine.clamp(-1, 1) - theirs).abs().max() < 1e-4


def test_diffusers_adapter_hands_the_exact_network_the_time_it_counts():
    """An exact network on diffusers' own table; one step off would be wrong by far more."""
    diffusers, peer = pytest.importorskip("diffusers"), pytest.importorskip("peer_diffusers")
    table, mixture = diffusers.DDPMScheduler(num_train_timesteps=1000).alphas_cumprod.double(), blobs()

    def unet(x, timestep):
        class Output:
            sample = torch.stack([exact_noise(mixture, image, table[i]) for image, i in zip(x, timestep, strict=True)])

        return Output

    _, xt, t = noisy(peer.DIFFUSION, mixture, [1, 3, 40, 400, 1000])
    truth = oracle(mixture, peer.DIFFUSION)(xt, t)
    assert (peer.FromZero(Calls(unet))(xt, t) - truth).abs().max() < 1e-3
    assert (peer.FromZero(Calls(unet))(xt, t.clamp(max=999) + 1) - truth).abs().max() > 1e-2  # the test can fail


def exact_noise(mixture: Mixture, x: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """E[noise | x_t] by Bayes' rule over the components, for one image, with no schedule."""
    means, s2 = mixture.means.double(), mixture.stds.double() ** 2
    variance = alpha_bar * s2 + 1 - alpha_bar
    gap = x.double() - alpha_bar.sqrt() * means  # (K, C, H, W)
    logits = mixture.weights.double().log() - gap.flatten(1).square().sum(1) / (2 * variance)
    logits -= gap[0].numel() / 2 * variance.log()
    noise = (1 - alpha_bar).sqrt() * gap / variance.reshape(-1, 1, 1, 1)
    return (logits.softmax(0).reshape(-1, 1, 1, 1) * noise).sum(0).float()


def test_diffusers_recipe_follows_its_plan_and_samples_from_the_average():
    peer = pytest.importorskip("peer_diffusers")
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 1, 3, padding=1)

    class Unet(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, timestep):
            return type("Output", (), {"sample": self.layer(x)})

    net = peer.FromZero(Unet())
    step, finish = peer.recipe(net, 1000)
    start = layer.weight.clone()
    for _ in range(20):
        step(torch.zeros(16, 1, 8, 8))
    moved = (layer.weight - start).abs().max()
    # Adam's steps are of the learning rate's size, and that rises from 0 to 1e-4 over 500 steps
    assert 0 < moved <= 1e-4 * sum(i / 500 for i in range(20)) * 1.2
    last = layer.weight.clone()
    assert finish() is net and 0 < (layer.weight - last).abs().max() < moved


def test_diffusers_sampler_visits_every_step():
    peer = pytest.importorskip("peer_diffusers")
    seen = []

    class Unet(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x, timestep):
            seen.append(int(timestep))
            return type("Output", (), {"sample": torch.zeros_like(x)})

    _, total, steps = peer.sampler(peer.FromZero(Unet()), (1, 1, 4, 4))
    assert len(list(steps)) == total == 1000 and seen == list(reversed(range(1000)))


# ---- smalldiffusion -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [peer_smalldiffusion.DIFFUSION.schedule, cosine_schedule(1000)])
def test_smalldiffusion_adapter_hands_over_sigma_and_the_unscaled_image(schedule):
    """For Gaussian data of deviation s, E[noise | x_0 + sigma noise] = sigma x / (s^2 + sigma^2)."""
    s, diffusion = 0.5, GaussianDiffusion(schedule, "noise")
    mixture = Mixture(torch.ones(1), torch.zeros(1, 1, 4, 4), torch.full((1,), s))
    net = peer_smalldiffusion.FromSigma(Calls(lambda x, sigma: sigma * x / (s**2 + sigma**2)), schedule)
    _, xt, t = noisy(diffusion, mixture, [1, 2, 100, 500, schedule.T])
    assert (net(xt, t) - oracle(mixture, diffusion)(xt, t)).abs().max() < 1e-4
    later = (t + 1).clamp(max=schedule.T)
    assert (net(xt, later) - oracle(mixture, diffusion)(xt, t)).abs().max() > 1e-3  # the test can fail


def test_smalldiffusion_noise_levels_are_its_examples():
    small = pytest.importorskip("smalldiffusion")
    theirs = small.ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800).sigmas
    assert (peer_smalldiffusion.SIGMAS / theirs - 1).abs().max() < 1e-5
    alpha_bar = peer_smalldiffusion.DIFFUSION.schedule.alpha_bar[1:]
    assert (alpha_bar * (1 + theirs.double() ** 2) - 1).abs().max() < 1e-5


def test_smalldiffusion_ideal_denoiser_is_our_oracle():
    small = pytest.importorskip("smalldiffusion")
    mixture = blobs(std=0.0)
    mixture = Mixture(torch.full((3,), 1 / 3), mixture.means, mixture.stds)
    net = peer_smalldiffusion.FromSigma(
        small.IdealDenoiser(list(mixture.means)), peer_smalldiffusion.DIFFUSION.schedule
    )
    _, xt, t = noisy(peer_smalldiffusion.DIFFUSION, mixture, [200, 400, 600, 800])
    assert (net(xt, t) - oracle(mixture, peer_smalldiffusion.DIFFUSION)(xt, t)).abs().max() < 1e-3


def test_smalldiffusion_ddim_is_our_ddim_through_the_adapter():
    small = pytest.importorskip("smalldiffusion")
    diffusion, mixture = peer_smalldiffusion.DIFFUSION, blobs(std=0.0)
    mixture = Mixture(torch.full((3,), 1 / 3), mixture.means, mixture.stds)
    model, times = small.IdealDenoiser(list(mixture.means)), [800, 600, 400, 250, 0]
    x_T = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    net = peer_smalldiffusion.FromSigma(model, diffusion.schedule)
    mine = sample(ddim_steps(net, diffusion, x_T.shape, times=times, x_T=x_T, clip=False), progress=False)
    sigmas = torch.cat([peer_smalldiffusion.SIGMAS[torch.tensor(times[:-1]) - 1], torch.zeros(1)])
    *_, theirs = small.samples(model, sigmas, xt=(x_T / diffusion.schedule.alpha_bar[800].sqrt()).float())
    assert (mine - theirs.cpu()).abs().max() < 1e-3


def test_smalldiffusion_slices_add_up_to_the_batchs_gradient(monkeypatch):
    small = pytest.importorskip("smalldiffusion")
    layer = nn.Conv2d(1, 1, 3, padding=1)

    class Model(nn.Module, small.ModelMixin):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, sigma, cond=None):
            return self.layer(x)

    def fixed(x0, schedule):  # no randomness, so that slices and the whole see the same
        return x0, torch.ones(len(x0), 1, 1, 1), x0.cos(), None

    monkeypatch.setattr(small.diffusion, "generate_train_sample", fixed)
    step, _ = peer_smalldiffusion.recipe(
        peer_smalldiffusion.FromSigma(Model(), peer_smalldiffusion.DIFFUSION.schedule), 1
    )
    x0, before = torch.randn(300, 1, 8, 8), layer.weight.detach().clone()
    whole = torch.autograd.grad((layer(x0 + x0.cos()) - x0.cos()).square().mean(), layer.weight)[0]
    step(x0)
    assert (layer.weight.grad - whole).abs().max() < 1e-5 and (layer.weight - before).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["annotated", "diffusers", "smalldiffusion"])
def test_every_peers_network_takes_our_calls(name):
    for package in {"annotated": ["denoising_diffusion_pytorch"]}.get(name, [name]):
        pytest.importorskip(package)
    peer = __import__(f"peer_{name}")
    net = peer.build(cosine_schedule(1000)).eval()
    with torch.no_grad():
        out = net(torch.randn(2, 1, 28, 28), torch.tensor([1, 1000]))
    assert out.shape == (2, 1, 28, 28) and out.isfinite().all()
    average = training.EMA(net)  # `train` makes one of any network
    average.update(net)
    assert all(torch.equal(a, b) for a, b in zip(average.net.parameters(), net.parameters(), strict=True))


# ---- measuring ----------------------------------------------------------------------------------------------------


def test_operations_are_counted():
    net = Calls(lambda x, t: nn.functional.scaled_dot_product_attention(*[layer(x).flatten(2).mT] * 3))
    layer = net.layer = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    pixels = 28 * 28
    convolution, attention = 2 * 9 * 8 * pixels, 2 * 2 * 8 * pixels**2
    assert measure.flops(net, torch.device("cpu")) == convolution + attention


def test_a_sampler_is_timed_on_some_of_its_steps():
    made = []

    def steps():
        for i in range(100):
            made.append(i)
            yield i

    assert measure.seconds_to_sample(steps(), 100, 7) > 0
    assert len(made) == 8  # one before the clock starts


def test_half_of_a_peers_images_are_mirrored():
    images = torch.zeros(64, 1, 4, 4, dtype=torch.uint8)
    images[..., 0] = 255
    x = next(measure.flipped_batches(images.repeat(4, 1, 1, 1), 256))
    mirrored = (x[:, 0, 0, 3] == 1).float().mean()
    assert x.min() == -1 and x.max() == 1 and 0.3 < mirrored < 0.7


@pytest.mark.parametrize("name", ["ours", "diffusers", "annotated, our recipe", "annotated", "smalldiffusion"])
def test_a_row_has_everything(name, monkeypatch):
    """With hardly any training and few samples; the numbers mean nothing."""
    if name != "ours":
        pytest.importorskip({"annotated": "denoising_diffusion_pytorch"}.get(name.split(",")[0], name))
    monkeypatch.setenv("DDPM_COURSE_FAST", "1")
    small = dict(SAMPLES=70, DDIM_STEPS=2, SHAPE=(2, 1, 28, 28), TIMED_STEPS=3, TRIAL=4, PACE_SECONDS=0)
    for constant, value in small.items():
        monkeypatch.setattr(measure, constant, value)
    monkeypatch.setattr(measure, "matrix_rate", lambda device: 1e11)
    images = torch.randint(0, 256, (80, 1, 28, 28), dtype=torch.uint8)
    monkeypatch.setattr(measure, "load_images", lambda split="train": (images, torch.arange(80) % 10))
    if "our" not in name:
        monkeypatch.setattr(sys.modules.get(f"peer_{name}") or __import__(f"peer_{name}"), "BATCH", 8)
    result = measure.row(name, minutes=1e-4, short=False)
    assert row(name).keys() <= result.keys() and json.loads(json.dumps(result)) == result
    numbers = [value for value in result.values() if isinstance(value, int | float)]
    assert all(0 <= value < float("inf") for value in numbers)
    assert result["frechet"] > 0 and result["images"] > 0
    total = int(result["sampler"].split(", ")[1].split()[0].replace(",", ""))
    assert ("timed on 3" in result["sampler"]) == (total > 3)


# ---- the runner ---------------------------------------------------------------------------------------------------


def row(name, frechet=1.0):
    return dict(
        name=name, parameters=1000, images_per_second=10.0, fraction_of_peak=0.5, frechet=frechet,
        seconds_64_samples=1.0, sampler="DDIM, 25 steps", peak_memory_mb=100,
    )  # fmt: skip


def test_an_interrupted_run_goes_on(tmp_path, capsys):
    path, asked, names = tmp_path / "results.json", [], ["ours", "diffusers", "annotated"]

    def interrupted(name, minutes):
        asked.append(name)
        if name == "diffusers":
            raise KeyboardInterrupt
        return row(name)

    with pytest.raises(KeyboardInterrupt):
        bench.run(names, path, 4, measure=interrupted)
    assert asked == ["ours", "diffusers"] and bench.read(path).keys() == {"ours"}

    asked.clear()
    assert bench.run(names, path, 4, measure=lambda name, minutes: asked.append(name) or row(name)) == []
    assert asked == ["diffusers", "annotated"]
    assert [entry["name"] for entry in json.loads(path.read_text())] == ["ours", "annotated", "diffusers"]
    assert bench.read(path)["ours"].keys() >= row("ours").keys() | {"minutes", "machine", "versions", "date"}
    assert bench.run(names, path, 4, measure=pytest.fail) == []  # nothing is left to do

    asked.clear()
    bench.run(["ours"], path, 4, again=True, measure=lambda name, minutes: asked.append(name) or row(name, 2.0))
    assert asked == ["ours"] and bench.read(path)["ours"]["frechet"] == 2.0 and len(bench.read(path)) == 3


def test_what_was_measured_elsewhere_or_otherwise_is_measured_again(tmp_path):
    path = tmp_path / "results.json"
    bench.run(["ours"], path, 4, measure=lambda name, minutes: row(name))
    for key, other in (("minutes", 1), ("machine", "another"), ("versions", {"torch": "1.0"})):
        entry, asked = bench.read(path), []
        bench.store(path, {"ours": entry["ours"] | {key: other}})
        bench.run(["ours"], path, 4, measure=lambda name, minutes, asked=asked: asked.append(name) or row(name))
        assert asked == ["ours"], key


def test_a_failed_row_does_not_stop_the_others(tmp_path):
    def measured(name, minutes):
        if name == "ours":
            raise RuntimeError("no memory")
        return row(name)

    path = tmp_path / "results.json"
    assert bench.run(["ours", "diffusers"], path, 4, measure=measured) == ["ours"]
    assert bench.read(path).keys() == {"diffusers"}


def test_names_are_checked_and_lessons_stand_for_all_of_them():
    assert bench.jobs(["ours", "lessons"])[:2] == ["ours", "00_start_here"]
    assert {*bench.ROWS, *bench.COSTS, "imports"} < set(bench.jobs())
    with pytest.raises(ValueError, match="nothing is called theirs"):
        bench.jobs(["theirs"])


def test_the_runner_itself_imports_nothing_heavy():
    """A process's peak memory counts for the next one that it starts."""
    script = "import bench, sys; print([m for m in ('torch', 'datasets', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_tables_show_what_is_stored():
    results = {name: row(name) for name in bench.ROWS} | {"steps": {"name": "steps", "values": {"10": 0.51, "25": 1.3}}}
    table, steps = bench.markdown(results).split("\n\n")
    assert len(table.splitlines()) == 2 + len(bench.ROWS)
    assert steps.splitlines()[0] == "| seconds for 64 images at sampling steps | 10 | 25 |"
    assert steps.splitlines()[2] == "|  | 0.5 | 1.3 |"


def test_the_curve_and_the_overhead_are_measured_and_shown(monkeypatch):
    """Few samples and steps: the numbers are not looked at beyond their order and range."""
    curve = measure.curve((1, 4), 70)
    assert set(curve["values"]) == set(measure.SAMPLERS) and all(set(at) == {1, 4} for at in curve["values"].values())
    for at in curve["values"].values():
        assert at[4][0] < at[1][0] and 10 < at[4][1] <= 100  # four steps are better than one
    monkeypatch.setattr(measure, "SHAPE", (2, 1, 28, 28))
    overhead = measure.overhead(repeats=2)
    assert all(seconds > 0 for seconds in overhead["values"].values())
    shown = bench.markdown({"curve": json.loads(json.dumps(curve)), "overhead": overhead}).splitlines()
    assert shown[0] == "| seconds for 64 images, 25 steps | bare calls | generate |"
    assert shown[4] == "| bundled network: Fréchet distance, as asked; sampling steps | 1 | 4 |"
    assert len(shown) == 6 + len(measure.SAMPLERS) and " %, " not in shown[6] and shown[6].count(" % |") == 2


def test_stored_results_are_complete_and_in_the_readme():
    if not bench.RESULTS.exists():
        pytest.skip("make bench has not stored anything yet")
    results = bench.read(bench.RESULTS)
    for name in bench.ROWS.keys() & results.keys():
        assert row(name).keys() | {"minutes", "machine", "date"} <= results[name].keys()
    assert len({(r["machine"], r["minutes"]) for r in results.values()}) == 1
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [line for line in bench.markdown(results).splitlines() if line and line not in readme] == []
    assets = (ROOT / "assets" / "README.md").read_text(encoding="utf-8")
    assert [line for line in bench.markdown({"curve": results["curve"]}).splitlines() if line not in assets] == []


@pytest.mark.skipif(os.name == "nt", reason="make")
def test_make_bench_sets_up_its_own_extra():
    handed_down = ("MAKE", "MFLAGS", "BENCH_ARGS", "PYTHON", "VENV")
    env = {key: value for key, value in os.environ.items() if not key.startswith(handed_down)}
    command = ["make", "-n", "bench", "VENV=.venv-none", f"PYTHON={sys.executable}", "BENCH_ARGS=--short"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert "-m pip install -e '.[bench]' -r requirements.txt" in done.stdout
    assert done.stdout.strip().endswith("tests/benchmarks/bench.py --short")
