"""The capstone: a student's file trains and samples alone, what is missing in it is named, and the result is scored."""

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from ddpm_course import capstone
from ddpm_course.checkpoints import StateFile
from ddpm_course.checks import library
from ddpm_course.data import ASSETS, load_images
from ddpm_course.samplers import ancestral_steps, sample
from ddpm_course.training import load_pretrained

SOLUTIONS = Path(__file__).parent.parent / "notebooks" / "solutions"
EXERCISES = {exercise.name: exercise for exercise in library.exercises()}


@pytest.fixture(scope="module")
def solved(tmp_path_factory) -> str:
    """The text of a my_ddpm.py that has every part: lesson 06's as its solutions have them, the rest from the course."""
    folder = tmp_path_factory.mktemp("solved")
    cells = {c.id: c.source for c in nbformat.read(SOLUTIONS / "06_sampling.ipynb", as_version=4).cells}
    source = "\n\n\n".join(cells[f"ex-6-{i}"] for i in range(1, 5))
    (folder / "lesson_06_solved.py").write_text("from itertools import pairwise\n\nimport torch\n\n\n" + source)
    sys.path.insert(0, str(folder))
    try:
        import lesson_06_solved
    finally:
        sys.path.remove(str(folder))
    text = library.HEADER
    for name in capstone.PARTS:
        text = library.add(text, EXERCISES[name], getattr(lesson_06_solved, name, EXERCISES[name].reference))
    return text


@pytest.fixture
def file(solved, tmp_path) -> Path:
    path = tmp_path / "my_ddpm.py"
    path.write_text(solved, encoding="utf-8")
    return path


def without(text: str, name: str) -> str:
    (block,) = (b for b in library.BLOCK.finditer(text) if b["name"] == name)
    return text[: block.start()] + text[block.end() :]


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

schedule = my.Schedule(my.betas_from_alpha_bars(my.cosine_alpha_bars(1000)))
small = my.MyUNet(channels=1, widths=(8, 16))
before = [p.clone() for p in small.parameters()]
optimizer = torch.optim.AdamW(small.parameters(), lr=1e-3)
x = my.to_model_range(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8))
losses = my.training_loop(small, schedule, optimizer, [x, x, x], g)
moved = sum(not torch.equal(a, b) for a, b in zip(before, small.parameters()))
print(len(losses), moved > 5)
"""


def test_alone_the_file_samples_what_the_package_samples_and_trains(file):
    """Bundled weights, same seed, in a process in which ddpm_course cannot be imported."""
    weights = ASSETS / "fashion_unet.safetensors"
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(weights)], cwd=file.parent, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("3 True", "")
    net, diffusion, _ = load_pretrained("cpu")
    g, y = torch.Generator().manual_seed(4), torch.arange(2)
    times = [1000, 800, 600, 400, 200, 100, 0]
    theirs = sample(ancestral_steps(net, diffusion, (2, 1, 28, 28), times=times, y=y, generator=g), progress=False)
    mine = torch.load(file.parent / "drawn.pt", weights_only=True)
    assert (mine - theirs).abs().max() < 0.02  # float32, and at T rounding counts 20,000 times before it is clipped
    assert theirs.std() > 0.4


def test_a_complete_file_is_all_the_students(file):
    my, mine, missing = capstone.load(file)
    assert (mine, missing) == (list(capstone.PARTS), {})
    assert {"Schedule", "MyUNet"} <= my.keys()


def test_without_a_file_everything_is_the_courses(tmp_path):
    my, mine, missing = capstone.load(tmp_path / "my_ddpm.py")
    assert mine == [] and set(missing.values()) == {"not here yet"} and list(missing) == list(capstone.PARTS)
    assert all(callable(my[name]) for name in (*capstone.PARTS, "MyUNet"))


def test_what_is_missing_given_or_wrong_is_named_and_replaced(file):
    text = without(without(file.read_text(encoding="utf-8"), "attention"), "training_loop")
    text = library.add(text, EXERCISES["attention"], EXERCISES["attention"].reference, given=True)
    (block,) = (b for b in library.BLOCK.finditer(text) if b["name"] == "estimate_x0")
    assert "x0.clamp(-1, 1) if clip" in block["body"]
    text = text.replace("x0.clamp(-1, 1) if clip", "x0.clamp(0, 1) if clip")
    file.write_text(text, encoding="utf-8")
    my, mine, missing = capstone.load(file)
    assert missing == {
        "attention": "given, not yours yet",
        "training_loop": "not here yet",
        "estimate_x0": "does not pass its check",
    }
    assert len(mine) == len(capstone.PARTS) - 3
    assert EXERCISES["estimate_x0"].check(my["estimate_x0"], my["Schedule"]).solved
    assert file.read_text(encoding="utf-8") == text  # the student's own file is left alone


def test_a_file_that_does_not_run_is_said_and_nothing_of_it_is_used(file, capsys):
    file.write_text(file.read_text(encoding="utf-8") + "\nraise ValueError('mine')\n", encoding="utf-8")
    _, mine, missing = capstone.load(file)
    assert mine == [] and set(missing.values()) == {"the file does not run"}
    assert "raises ValueError: mine" in capsys.readouterr().out


def reading_ahead(net, schedule, optimizer, batches, generator):
    """A training loop written otherwise: all batches first, and the step inside it."""
    losses = []
    for x0 in list(batches):
        t = schedule.sample_t(len(x0), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        signal, sigma = schedule.q_coefficients(t, x0)
        loss = (net(signal * x0 + sigma * noise, t) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("loop", [None, reading_ahead])
def test_the_budget_the_learning_rate_and_the_average_follow_every_step(loop, monkeypatch, capsys, tmp_path):
    my, _, _ = capstone.load(tmp_path / "none.py")
    my["training_loop"] = loop or my["training_loop"]
    rates, averaged = [], []
    monkeypatch.setattr(capstone, "best_device", lambda: torch.device("cpu"))
    update, rate = capstone.EMA.update, capstone.learning_rate
    monkeypatch.setattr(capstone.EMA, "update", lambda *args: averaged.append(1) or update(*args))
    monkeypatch.setattr(capstone, "learning_rate", lambda *args: rates.append(rate(*args)) or rates[-1])
    net = my["MyUNet"](channels=1, widths=(8, 16))
    schedule = my["Schedule"](torch.full((10,), 0.1))
    monkeypatch.setattr(capstone, "BATCH", 2)
    _, losses = capstone.train(my, net, schedule, torch.zeros(8, 1, 8, 8, dtype=torch.uint8), minutes=0.04, seed=0)
    assert len(losses) == len(rates) == len(averaged) >= 28
    assert rates[0] < rates[10] and len(set(rates)) > 25
    out = capsys.readouterr().out
    assert f"are {len(losses):,} steps" in out and f"trained {len(losses):,} steps" in out


def test_a_run_scores_and_hands_in(file, monkeypatch, capsys):
    """In fast mode: three steps of training. The order of the scores is what it must be, even so."""
    monkeypatch.setenv("DDPM_COURSE_FAST", "1")
    monkeypatch.delenv("DDPM_COURSE_SAVE")
    monkeypatch.chdir(file.parent)
    capstone.reference.cache_clear()
    try:
        result = capstone.run(minutes=5)
    finally:
        capstone.reference.cache_clear()
    assert list(result.scores) == ["noise", "untrained", "yours", "bundled", "real"]
    assert result.scores["real"] < result.scores["bundled"] < result.scores["yours"] < result.scores["noise"] * 1.2
    assert result.images.dtype == torch.uint8 and result.images.shape == (70, 1, 28, 28) and result.steps == 3
    assert 0 <= result.quality <= 100 and len(result.mine) == len(capstone.PARTS)
    facts = json.loads((file.parent / "capstone.json").read_text(encoding="utf-8"))
    assert facts["parts"] == list(capstone.PARTS) and facts["quality"] == result.quality
    assert facts["frechet_distance"]["yours"] == pytest.approx(result.distance, abs=0.001)
    assert (file.parent / "capstone.png").read_bytes().startswith(b"\x89PNG")
    assert not list(file.parent.glob("*.partial"))
    out = capsys.readouterr().out
    assert f"{len(capstone.PARTS)} of {len(capstone.PARTS)} parts are yours" in out
    assert "parts that are yours: 18 of 18" in str(result)


def test_the_quality_is_0_for_noise_and_100_for_real_images():
    def quality(distance):
        scores = {"noise": 100.0, "untrained": 100.0, "yours": distance, "bundled": 2.0, "real": 1.0}
        return capstone.Result([], {}, 1.0, 0, [], torch.zeros(0), scores).quality

    assert [quality(d) for d in (120.0, 100.0, 10.0, 1.0, 0.5)] == [0, 0, 50, 100, 100]


@pytest.mark.parametrize(("how", "says"), [({"minutes": 0}, "minutes must be"), ({"samples": 64}, "more than 64")])
def test_what_cannot_be_scored_is_said(how, says):
    with pytest.raises(ValueError, match=says):
        capstone.run(**how)


def test_a_function_that_fails_at_its_work_is_one_sentence(tmp_path, monkeypatch):
    my, _, _ = capstone.load(tmp_path / "none.py")
    monkeypatch.setattr(capstone, "best_device", lambda: torch.device("cpu"))

    def broken(net, schedule, optimizer, batches, generator):
        raise RuntimeError("shapes do not fit")

    my["training_loop"] = broken
    with pytest.raises(RuntimeError, match="training stopped: shapes do not fit"):
        capstone.train(my, my["MyUNet"](channels=1, widths=(8, 16)), None, load_images(limit=70)[0], 1, 0)


# ------------------------------------------------------------------------------ on a GPU, and when it is stopped


class FakeGPU(str):
    """The CPU under another name: FakeGPU("cpu")."""

    type = "cuda"

    def __format__(self, spec):
        return "cuda"


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """trained(loop) trains a small network with loop(turn, net, go_on), where go_on() is a turn of the course's loop."""
    my, _, _ = capstone.load(tmp_path / "none.py")
    schedule = my["Schedule"](torch.full((10,), 0.1))
    good = my["training_loop"]
    monkeypatch.setattr(capstone, "BATCH", 2)

    monkeypatch.setattr(capstone, "best_device", lambda: FakeGPU("cpu"))

    def train(loop, minutes=0.02, file=None):
        torch.manual_seed(0)
        net, turns = my["MyUNet"](channels=1, widths=(8, 16)), itertools.count(1)

        def training_loop(net, *args):
            return loop(next(turns), net, lambda: good(net, *args))

        images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
        return capstone.train(my | {"training_loop": training_loop}, net, schedule, images, minutes, 0, file)

    return train


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Expected all tensors to be on the same device\nand more"),
        TypeError("can't convert cuda:0 device type tensor to numpy."),
        ValueError("t is on cpu but the data is on cuda:0"),
        NotImplementedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_on_a_gpu_is_trained_on_the_cpu_from_the_start(trained, capsys, error):
    """It fails in its second turn, when the weights have moved."""
    weights = []

    def loop(turn, net, go_on):
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
        if turn == 2:
            raise error
        return go_on()

    _, losses = trained(loop)
    assert torch.equal(weights[2], weights[0]) and not torch.equal(weights[1], weights[0])
    out = capsys.readouterr().out
    reason = str(error).partition("\n")[0] or "NotImplementedError"
    assert f"your functions do not work on cuda yet ({reason}); training on the CPU\n" in out
    assert f"trained {len(losses):,} steps" in out and len(losses) >= 28


def test_a_loss_that_explodes_on_a_gpu_is_not_blamed_on_the_gpu(trained, capsys):
    turns = []

    def loop(turn, net, go_on):
        turns.append(turn)
        return [loss * (float("nan") if turn == 2 else 1) for loss in go_on()]

    with pytest.raises(RuntimeError, match="^training stopped: the loss is not finite any more after step 28$"):
        trained(loop)
    assert turns == [1, 2] and "do not work" not in capsys.readouterr().out


def test_a_checkpoint_of_another_training_is_not_blamed_on_the_functions(trained, tmp_path, capsys):
    trained(lambda turn, net, go_on: go_on(), file=StateFile(tmp_path / "state", {"seed": 0}))
    with pytest.raises(ValueError, match="belongs to another training"):
        trained(lambda turn, net, go_on: go_on(), file=StateFile(tmp_path / "state", {"seed": 1}))
    assert "do not work" not in capsys.readouterr().out


def test_a_sampler_that_fails_on_a_gpu_draws_on_the_cpu(monkeypatch, capsys):
    """And one that fails there too is one sentence."""
    monkeypatch.setattr(capstone, "device_of", lambda net: FakeGPU("cpu"))
    net, calls = torch.nn.Linear(1, 1), itertools.count(1)

    def ancestral_loop(net, schedule, x_T, times, generator):
        if next(calls) in broken:
            raise RuntimeError("Expected a 'cpu' device type for generator but found 'cuda'\nand more")
        return x_T

    broken = {2}  # the second chunk
    drawn = capstone.draw({"ancestral_loop": ancestral_loop}, net, None, 5, 2, seed=3, chunk=3)
    generator = torch.Generator().manual_seed(3)
    expected = [torch.randn(n, 1, 28, 28, generator=generator) for n in (3, 2)]
    assert torch.equal(drawn, torch.cat(expected))
    said = "your functions do not work on cuda yet (Expected a 'cpu' device type for generator but found 'cuda')"
    assert capsys.readouterr().out == f"{said}; sampling on the CPU\n"
    broken = range(100)
    with pytest.raises(RuntimeError, match="^sampling stopped: Expected a 'cpu' device type .* found 'cuda'$"):
        capstone.draw({"ancestral_loop": ancestral_loop}, net, None, 5, 2, seed=3)


@pytest.fixture
def stoppable():
    """Tests in the background start out ignoring the stop button."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pressed_in(number):
    """The stop button, pressed in the middle of a turn."""

    def loop(turn, net, go_on):
        if turn == number:
            signal.raise_signal(signal.SIGINT)
        return go_on()

    return loop


def test_the_stop_button_leaves_a_model_and_the_state(trained, stoppable, tmp_path, capsys):
    """3 + 25 + 25 steps: the turn is finished. The next call goes on from there."""
    state = StateFile(tmp_path / "state", {})
    ema, losses = trained(pressed_in(3), minutes=1, file=state)
    assert ema.updates == len(losses) == len(state.load()["losses"]) == 53
    planned = state.load()["planned"]
    assert planned > 53
    said = f"stopped after 53 of {planned:,} steps: the network is used as it is, and the same call goes on from here\n"
    assert said + "trained 53 steps" in capsys.readouterr().out
    ema, losses = trained(pressed_in(1), minutes=1, file=state)
    assert ema.updates == len(losses) == len(state.load()["losses"]) == min(78, planned)
    assert f"going on from {state.path}: step 53 of {planned:,}\n" in capsys.readouterr().out


def test_the_stop_button_without_a_checkpoint_or_room_for_one(trained, stoppable, tmp_path, capsys, monkeypatch):
    trained(pressed_in(3), minutes=1)
    assert "as it is, and with checkpoint= the same call could go on from here\n" in capsys.readouterr().out

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StateFile, "save", full)
    _, losses = trained(pressed_in(3), minutes=1, file=StateFile(tmp_path / "state", {}))
    out = capsys.readouterr().out
    assert len(losses) == 53
    assert "the state of step 53 could not be written ([Errno 28] No space left on device)" in out
    assert "the network is used as it is\n" in out


def test_the_stop_button_before_there_is_a_plan_stops_everything(trained, stoppable):
    """The plan is made in the second turn."""
    with pytest.raises(KeyboardInterrupt):
        trained(pressed_in(1), minutes=1)


def test_on_the_command_line_a_mistake_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["capstone", str(tmp_path / "none.py"), "--minutes", "0"])
    with pytest.raises(SystemExit, match="^minutes must be more than 0, got 0$"):
        capstone.main()
