"""The doctor names what is wrong by its effects, and says nothing about a healthy model."""

import subprocess
import sys

import patients
import pytest
import torch
from core import seeded
from torchvision.transforms.functional import resize

from ddpm_course.data import ASSETS, load_images
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.doctor import PROBES, admit, ask, examine
from ddpm_course.samplers import ancestral_steps, ddim_steps, sample
from ddpm_course.schedules import cosine_schedule, linear_schedule, quadratic_schedule, sigmoid_schedule
from ddpm_course.toy import bimodal, oracle, ring
from ddpm_course.training.checkpoints import load_checkpoint, load_pretrained

CLINIC = ASSETS / "patients" / "healthy.safetensors"  # trained for a minute, on 16 x 16 pixels, with T = 100


def names(examination):
    return [finding.name for finding in examination.suspicious]


@pytest.mark.parametrize("mistake", patients.MISTAKES)
def test_a_mistake_is_named_and_at_most_one_thing_beside_it(mistake):
    patient, probe = patients.MISTAKES[mistake]
    examination = examine(**patient())
    found = names(examination)
    assert probe in found and len(found) <= 2, examination.table()


@pytest.mark.parametrize("predicts", ["v", "noise", "x0"])
@pytest.mark.parametrize("maker, T", [(cosine_schedule, 1000), (linear_schedule, 1000), (linear_schedule, 100),
                                      (sigmoid_schedule, 400), (quadratic_schedule, 1000)])  # fmt: skip
def test_an_exact_network_on_pictures_is_healthy(predicts, maker, T):
    patient = patients.healthy(predicts, maker, T)
    samples = patients.chain(patient["net"], patient["diffusion"], steps=50)
    examination = examine(**patient, samples=samples, losses=patients.curve(patient), raw=patient["net"])
    assert not names(examination), examination.table()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mixture", [ring(), bimodal()], ids=["ring", "bimodal"])
@pytest.mark.parametrize("diffusion", [GaussianDiffusion(cosine_schedule(1000), "v"),
                                       GaussianDiffusion(linear_schedule(200), "noise"),
                                       GaussianDiffusion(cosine_schedule(50), "x0")], ids=["v", "noise", "x0"])  # fmt: skip
def test_an_oracle_is_healthy(mixture, diffusion, seed):
    net, data = oracle(mixture, diffusion), mixture.sample(4000, generator=seeded(seed))
    samples = sample(ddim_steps(net, diffusion, (200, *data.shape[1:]), 50, generator=seeded(seed)), progress=False)
    examination = examine(net, diffusion, data, samples=samples)
    assert not names(examination), examination.table()


def test_a_small_trained_network_is_healthy():
    model, _ = patients.small()
    made = ddim_steps(model["net"], model["diffusion"], (200, 2), 50, y=model["labels"][:200], generator=seeded())
    examination = examine(**model, samples=sample(made, progress=False))
    assert not names(examination), examination.table()


@pytest.mark.parametrize("later, state", [(0, "sound"), (1, "suspicious"), (-1, "suspicious")])
def test_a_network_of_a_minute_is_seen_to_be_told_t_one_off(later, state):
    net, diffusion, _ = load_checkpoint(CLINIC, "cpu")
    images, labels = (x[:600] for x in load_images(split="test"))
    images = resize(images, [16, 16], antialias=True)
    told = patients.Around(net.float(), lambda net, x, t, y: net(x, (t + later).clamp(1, diffusion.schedule.T), y))
    assert ask(admit(told, diffusion, images, labels), "start of t").state == state


@pytest.mark.parametrize("name", ["bundled", "learned", pytest.param("emoji", marks=pytest.mark.slow)])
def test_the_bundled_networks_are_healthy(name):
    net, diffusion, about = load_pretrained("cpu", name)
    images, labels = patients.load(about["data"])
    steps = ancestral_steps(net, diffusion, (32, *images.shape[1:]), 20, y=labels[:32], generator=seeded())
    samples = sample(steps, progress=False)
    before = torch.get_rng_state()
    examination = examine(net, diffusion, images, labels, samples=samples)
    assert not names(examination), examination.table()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_missing_is_said():
    patient = patients.healthy() | dict(labels=None)
    examination = examine(**patient)
    assert examination.sound
    missing = {finding.name: finding.value for finding in examination.unknown}
    assert missing["losses"] == "no losses were given"
    assert missing["noise in the samples"] == "no samples were given"
    assert missing["right labels"] == "no labels were given"
    text, page = str(examination), examination._repr_html_()
    assert text.startswith("Nothing suspicious") and "Not judged:" in text and "no samples were given" in text
    assert "Nothing suspicious" in page and "no samples were given" in page


def test_a_finding_prints_measure_value_meaning_and_lesson():
    patient, probe = patients.MISTAKES["t backwards"]
    examination = examine(**patient())
    finding = examination[probe]
    text, page = " ".join(str(examination).split()), examination._repr_html_()
    for said in (finding.value, finding.means, finding.probe.measures, finding.probe.sound, finding.probe.lesson):
        assert " ".join(said.split()) in text
    assert "backwards" in page and "lesson 03" in page and "<table>" in page
    assert max(map(len, str(examination).splitlines())) <= 100
    with pytest.raises(KeyError, match="there is no probe 'fever'"):
        examination["fever"]


def test_one_probe_alone_finds_what_it_finds_in_an_examination():
    patient, probe = patients.MISTAKES["t backwards"]
    examination = examine(**patient())
    admitted = admit(**patient())
    for name in (probe, "range of the data", "losses"):
        assert ask(admitted, name) == examination[name]
    assert examination["a short sampling"].state == "waiting" != ask(admitted, "a short sampling").state
    with pytest.raises(KeyError, match="there is no probe 'fever'; there are: range of the data, "):
        ask(admitted, "fever")
    assert len({probe.name for probe in PROBES}) == len(PROBES) > 30


@pytest.mark.parametrize("change, words", [
    (dict(net=3), "net must be a callable"),
    (dict(diffusion=cosine_schedule()), "diffusion must be a GaussianDiffusion"),
    (dict(images=torch.zeros(3, 1, 8, 8)), "at least 16"),
    (dict(labels=torch.zeros(4, dtype=torch.int64)), "labels must have shape"),
    (dict(labels=torch.full((1500,), 12)), "labels must lie in 0..9"),
    (dict(samples=torch.zeros(5, 1, 28, 28)), "samples must be two or more items of the images' shape"),
    (dict(losses=torch.zeros(3, 3)), "losses must be a list of numbers"),
])  # fmt: skip
def test_errors_are_in_the_students_terms(change, words):
    with pytest.raises(ValueError, match=words):
        examine(**(patients.healthy() | change))


def test_nothing_that_is_given_is_changed():
    patient = patients.healthy()
    images, state = patient["images"].clone(), torch.get_rng_state()
    net = torch.nn.BatchNorm2d(1)
    examine(
        patients.Around(patient["net"], lambda exact, x, t, y: exact(x, t, y) + 0 * net(x)),
        patient["diffusion"],
        images,
    )
    assert torch.equal(images, patient["images"]) and torch.equal(torch.get_rng_state(), state)
    net = torch.nn.BatchNorm2d(1)
    inside = patients.Around(net, lambda norm, x, t, y: norm(x)).train()
    examine(inside, patient["diffusion"], images)
    assert inside.training and net.num_batches_tracked == 0 and not net.running_mean.any()


def test_the_command_line_says_what_it_cannot_read(tmp_path):
    command = [sys.executable, "-m", "ddpm_course.doctor", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no checkpoint at" in done.stderr and "Traceback" not in done.stderr
