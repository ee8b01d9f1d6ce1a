"""The capstone: a student's file trains and samples alone, what is missing in it is named, and the result is scored."""

import itertools
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from core import seeded
from courses import python
from trainings import IMAGES, Clock, same, state_in

from ddpm_course import capstone
from ddpm_course.checks import judge, library
from ddpm_course.data import ASSETS
from ddpm_course.samplers import ancestral_steps, sample
from ddpm_course.training import learning_rate, load_pretrained, loop
from ddpm_course.training.step import EMA

COURSES = capstone.load("nowhere.py")  # every part is the course's


@pytest.fixture
def file(tmp_path) -> Path:
    """A my_ddpm.py that has every part."""
    text, path = library.HEADER, tmp_path / "my_ddpm.py"
    for name in capstone.PARTS:
        text = library.add(text, library.BY_NAME[name], library.BY_NAME[name].reference)
    path.write_text(text, encoding="utf-8")
    return path


def block(text: str, name: str) -> str:
    (found,) = (b for b in library.BLOCK.finditer(text) if b["name"] == name)
    return found[0]


ALONE = """
import sys
sys.modules["ddpm_course"] = None  # importing it raises
sys.path.insert(0, ".")
import torch
from safetensors.torch import load_file
import my_ddpm as my

tensors = load_file(sys.argv[1])
schedule = my.Schedule(tensors.pop("betas"))
net = my.MyUNet(channels=1, widths=(48, 96), num_classes=10)
net.load_state_dict(tensors)
net.eval()

def noise(x, t):  # the bundled network's output is v
    signal, sigma = schedule.q_coefficients(t, x)
    return sigma * x + signal * net(x, t, torch.arange(len(x)))

g = torch.Generator().manual_seed(4)
x_T = torch.randn(2, 1, 28, 28, generator=g)
torch.save(my.ancestral_loop(noise, schedule, x_T, [1000, 800, 600, 400, 200, 100, 0], g), "drawn.pt")

small = my.MyUNet(channels=1, widths=(8, 16))
before = [p.clone() for p in small.parameters()]
x = my.to_model_range(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8))
losses = my.training_loop(small, schedule, torch.optim.AdamW(small.parameters()), [x, x, x], g)
print(len(losses), sum(not torch.equal(a, b) for a, b in zip(before, small.parameters())) > 5)
"""


def test_alone_the_file_samples_what_the_package_samples_and_trains(file):
    """Bundled weights, same seed, in a process in which ddpm_course cannot be imported."""
    weights = ASSETS / "fashion_unet.safetensors"
    assert python("-I", "-c", ALONE, weights, cwd=file.parent) == "3 True\n"
    net, diffusion, _ = load_pretrained("cpu")
    options = dict(times=[1000, 800, 600, 400, 200, 100, 0], y=torch.arange(2), generator=seeded(4))
    theirs = sample(ancestral_steps(net, diffusion, (2, 1, 28, 28), **options), progress=False)
    mine = torch.load(file.parent / "drawn.pt", weights_only=True)
    assert (mine - theirs).abs().max() < 0.02  # float32, and at T rounding counts 20,000 times before it is clipped
    assert theirs.std() > 0.4


def test_what_is_missing_given_or_wrong_is_named_and_replaced(file):
    text, clip = file.read_text(encoding="utf-8"), "x0.clamp(-1, 1) if clip"
    for name in ("attention", "training_loop"):
        text = text.replace(block(text, name), "")
    text = library.add(text, attention := library.BY_NAME["attention"], attention.reference, given=True)
    assert clip in block(text, "estimate_x0")
    text = text.replace(clip, "x0.clamp(0, 1) if clip")
    text = text.replace("    return f / f[0]\n", "    return (f / f[0]).float()\n")  # which passed once, and goes on
    file.write_text(text, encoding="utf-8-sig")  # as some editors save it
    my, mine, missing = capstone.load(file)
    assert missing.pop("attention") == "given, not yours yet" and missing.pop("training_loop") == "not here yet"
    assert missing == {"estimate_x0": "does not pass its check"}
    assert len(mine) == len(capstone.PARTS) - 3
    assert judge.check(library.BY_NAME["estimate_x0"], my["estimate_x0"], my["Schedule"]).solved
    assert my["cosine_alpha_bars"](4).dtype == torch.float32
    assert file.read_text(encoding="utf-8-sig") == text  # the student's own file is left alone


def test_a_file_that_does_not_run_is_said_and_nothing_of_it_is_used(file, capsys):
    file.write_text(file.read_text(encoding="utf-8") + "\nraise ValueError('mine')\n", encoding="utf-8")
    _, mine, missing = capstone.load(file)
    assert mine == [] and set(missing.values()) == {"the file does not run"}
    assert "raises ValueError: mine" in capsys.readouterr().out


def test_a_run_scores_and_hands_in(file, monkeypatch, capsys):
    """In fast mode: three steps of training, which make nothing yet. The scores of the others are in order."""
    monkeypatch.setenv("DDPM_COURSE_FAST", "1")
    monkeypatch.delenv("DDPM_COURSE_SAVE")
    monkeypatch.chdir(file.parent)
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(file.parent))
    capstone.reference.cache_clear()
    result = capstone.run(np.float32(5), path="~/my_ddpm.py", steps=torch.tensor(2), widths=[np.int64(32), 64])
    capstone.reference.cache_clear()
    assert list(result.scores) == ["noise", "untrained", "yours", "bundled", "real"]
    nothing = [result.scores[name] for name in ("noise", "untrained", "yours")]
    assert result.scores["real"] < result.scores["bundled"] < min(nothing) and max(nothing) < 200
    assert result.images.dtype == torch.uint8 and result.images.shape == (70, 1, 28, 28) and result.steps == 3
    facts = json.loads((file.parent / "capstone.json").read_text(encoding="utf-8"))
    assert facts["parts"] == list(capstone.PARTS) and facts["quality"] == result.quality
    assert facts["frechet_distance"]["yours"] == pytest.approx(result.distance, abs=0.001)
    assert (file.parent / "capstone.png").read_bytes().startswith(b"\x89PNG")
    assert not list(file.parent.glob("*.partial"))
    assert "18 of 18 parts are yours" in capsys.readouterr().out and "yours: 18 of 18" in str(result)


def test_the_quality_is_0_for_noise_and_100_for_real_images():
    for distance, quality in zip((120.0, 100.0, 10.0, 1.0, 0.5), (0, 0, 50, 100, 100), strict=True):
        scores = {"noise": 100.0, "untrained": 100.0, "yours": distance, "bundled": 2.0, "real": 1.0}
        assert capstone.Result([], {}, 1.0, 0, [], torch.zeros(0), scores).quality == quality


@pytest.mark.parametrize(
    "argument, wrong, sentence",
    [
        *(("minutes", wrong, "a finite number, more than 0") for wrong in (0, -1, math.nan, math.inf, "5", None)),
        *(("samples", wrong, "a whole number from 65 to 24000") for wrong in (64, 24_001, 99.5, "99", True)),
        *(("steps", wrong, "a whole number from 1 to 1000") for wrong in (0, 1001, 2.5, None)),
        *(("seed", wrong, "a whole number from 0 to") for wrong in (-1, 0.5, 2**63 - 1)),
        *(("widths", wrong, "a whole number, 1 or more") for wrong in ("ab", [64.5], (0, 8), None)),
        *(("widths", wrong, "multiples of 8") for wrong in ((), 10, (8, 12))),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_anything_is_trained(argument, wrong, sentence):
    with pytest.raises(ValueError, match=f"{argument} must be {sentence}"):
        capstone.run(**{argument: wrong})


def test_what_cannot_be_scored_is_said(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["capstone", "none.py", "--minutes", "0"])
    with pytest.raises(SystemExit, match=r"^minutes must be a finite number, more than 0, got 0\.0$"):
        capstone.main()


class FakeGPU(str):
    """The CPU under another name: FakeGPU("cpu")."""

    type = "gpu"

    def __format__(self, spec):
        return "cuda"


def test_the_network_learns_v_while_the_students_loop_sees_noise_and_draws_more_large_t():
    """A network whose v is exact answers with the exact noise; t is drawn around what compensates for alpha_bar."""
    my, _, _ = COURSES
    schedule = my["Schedule"](my["betas_from_alpha_bars"](my["cosine_alpha_bars"](1000)))
    x0, noise = torch.randn(2, 64, 1, 2, 2, generator=seeded(), dtype=torch.float64)
    t = torch.arange(64) * 15 + 1
    signal, sigma = schedule.q_coefficients(t, x0)
    answering = capstone.AnswersNoise(lambda x, t: signal * noise - sigma * x0, schedule)
    assert (answering(signal * x0 + sigma * noise, t) - noise).abs().max() < 1e-12

    net = my["MyUNet"](channels=1, widths=(8,))
    training = capstone.StudentTraining(my, net, schedule, IMAGES[:9], 0, torch.device("cpu"))
    drawn = torch.logit(training.schedule.sample_t(20_000, generator=seeded()).double() / 1000 - 5e-4)
    mean, deviation = capstone.T_AROUND
    assert abs(drawn.mean() - mean) < 5 * deviation / 20_000**0.5 and abs(drawn.std() - deviation) < 0.05
    assert schedule.sample_t(20_000, generator=seeded()).double().mean() > 490  # the student's own is as it was


@pytest.fixture
def trained(monkeypatch):
    """trained(loop) trains a small network for 60 steps with loop(turn, go_on); go_on() is a turn of the course's loop."""
    my, _, _ = COURSES
    schedule, good = my["Schedule"](torch.full((10,), 0.1)), my["training_loop"]
    monkeypatch.setattr(capstone, "BATCH", 2)
    monkeypatch.setattr(capstone, "best_device", lambda: FakeGPU("cpu"))
    Clock(monkeypatch, lambda step: 0.5)

    def train(training_loop=lambda turn, go_on: go_on(), checkpoint=None, **about):
        torch.manual_seed(0)
        net, turns = my["MyUNet"](channels=1, widths=(8, 16)), itertools.count(1)
        mine = my | {"training_loop": lambda *given: training_loop(next(turns), lambda: good(*given))}
        return capstone.train_with(mine, net, schedule, IMAGES[:9], 0.5, 0, checkpoint, about)

    return train


def at(turn, happen):
    """A training loop in which something happens at the beginning of one turn."""
    return lambda now, go_on: (happen() if now == turn else None, go_on())[1]


@pytest.mark.parametrize("form", [float, torch.as_tensor, lambda loss: torch.tensor([loss], requires_grad=True)])
def test_the_budget_the_learning_rate_and_the_average_follow_every_step(trained, monkeypatch, capsys, form):
    rates, averaged, clipped, update = [], [], [], EMA.update
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *limit: clipped.append(1))
    monkeypatch.setattr(EMA, "update", lambda *nets: averaged.append(1) or update(*nets))
    monkeypatch.setattr(loop, "learning_rate", lambda *plan: rates.append(learning_rate(*plan)) or rates[-1])
    run = trained(lambda turn, go_on: [form(loss) for loss in go_on()])
    assert run.step == run.steps == len(averaged) == len(clipped) == 60
    assert rates == [learning_rate(step, None if step < 30 else 60, capstone.LR) for step in range(60)]
    assert [step for step, _ in run.losses] == [25, 50, 60] and run.losses[-1][1] < run.losses[0][1]
    out = capsys.readouterr().out
    assert "2.0 steps/s: 0.5 minutes are 60 steps\n" in out and "trained 60 steps, loss " in out


ERRORS = RuntimeError("two devices\nand more"), TypeError("no NumPy"), ValueError("t is here"), NotImplementedError()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_fails_on_a_gpu_is_trained_on_the_cpu_from_the_start(trained, monkeypatch, capsys, error):
    """It fails in its second turn, when the weights have moved. What fails on the CPU too is one sentence."""
    monkeypatch.setenv("DDPM_COURSE_FAST", "1")

    def broken(turn, go_on):
        if turn in fails:
            raise error
        return go_on()

    fails, reason = [2], str(error).partition("\n")[0] or "NotImplementedError"
    run = trained(broken)
    assert f"\nyour functions do not work on cuda yet ({reason}); training on the CPU\n" in capsys.readouterr().out
    monkeypatch.setattr(capstone, "best_device", lambda: torch.device("cpu"))
    assert same(run.ema.state_dict(), trained().ema.state_dict())
    fails = [1]
    with pytest.raises(RuntimeError, match=f"^training stopped: {re.escape(reason)}$"):
        trained(broken)


@pytest.mark.parametrize("device", [FakeGPU("cpu"), torch.device("cpu")], ids=["planned late", "planned early"])
def test_interrupted_it_ends_with_the_same_bits(trained, stop_button, monkeypatch, tmp_path, device):
    """Stopped in the tenth step, before there is a loss to tell and anything to draw from, and in the 45th."""
    monkeypatch.setattr(capstone, "best_device", lambda: device)
    with pytest.raises(KeyboardInterrupt):
        trained(at(10, stop_button), tmp_path / "state")
    assert trained(at(35, stop_button), tmp_path / "state").step == state_in(tmp_path / "state")["run"]["step"] == 45
    for name in "state", "whole":
        trained(checkpoint=tmp_path / name)
    assert same(state_in(tmp_path / "state"), state_in(tmp_path / "whole"))


def test_a_checkpoint_of_another_training_is_not_blamed_on_the_functions(trained, tmp_path, capsys):
    trained(checkpoint=tmp_path / "state", seed=0)
    with pytest.raises(ValueError, match="belongs to another training"):
        trained(checkpoint=tmp_path / "state", seed=1)
    assert "do not work" not in capsys.readouterr().out


def test_a_sampler_that_fails_on_a_gpu_draws_on_the_cpu(monkeypatch, capsys):
    """And one that fails there too is one sentence."""
    monkeypatch.setattr(capstone, "device_of", lambda net: FakeGPU("cpu"))
    net, calls = torch.nn.Linear(1, 1), itertools.count(1)

    def ancestral_loop(net, schedule, x_T, times, generator):
        if next(calls) in broken:
            raise RuntimeError("not on 'cuda'\nand more")
        return x_T

    broken = {2}  # the second chunk
    drawn = capstone.draw({"ancestral_loop": ancestral_loop}, net, None, 5, 2, seed=3, chunk=3)
    assert torch.equal(drawn, torch.randn(5, 1, 28, 28, generator=seeded(3)))  # in two chunks, the same numbers
    said = "your functions do not work on cuda yet (not on 'cuda'); sampling on the CPU\n"
    assert capsys.readouterr().out == said
    broken = range(100)
    with pytest.raises(RuntimeError, match="^sampling stopped: not on 'cuda'$"):
        capstone.draw({"ancestral_loop": ancestral_loop}, net, None, 5, 2, seed=3)
