"""Lesson 07's exercises against the package and PyTorch. The answers that are typed are in answers/lesson07.answers."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typed
from PIL import Image

from ddpm_course import checks
from ddpm_course.exercises import cases07, lesson07
from ddpm_course.pictures import open_picture
from ddpm_course.training import EMA, plan


def test_the_average_is_the_packages():
    """After 60 updates, with the warm-up at first and then a half-life of 15; a counter comes along."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    ema, half_life = EMA(net, 0.5 ** (1 / 15)), 15
    average = [value.clone() for value in net.state_dict().values()]
    for n in range(1, 61):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1 * torch.randn_like(p))
        net(torch.randn(8, 3))  # moves the statistics and the counter
        ema.update(net)
        decay = lesson07.ema_decay(n, half_life)
        average = lesson07.ema_update(average, list(net.state_dict().values()), decay)
    mine = dict(zip(net.state_dict(), average, strict=True))
    for name, weight in ema.net.named_parameters():
        assert (mine[name] - weight).abs().max() < 1e-5, name
    assert mine["1.num_batches_tracked"] == ema.net.state_dict()["1.num_batches_tracked"] == 60


def test_the_paper_s_decay_has_the_default_half_life():
    assert abs(lesson07.ema_decay(10**9) - 0.9999) < 1e-8


def test_the_plan_is_the_packages():
    for steps in (30, 50, 51, 400):
        for step in range(steps):
            mine, theirs = lesson07.learning_rate(step, steps, 4e-3), plan.learning_rate(step, steps, 4e-3)
            assert abs(mine - theirs) < 1e-15, (step, steps)


def test_parts_have_the_gradient_of_the_whole():
    """To 1e-10 in float64, as the lesson says, for a last part that is smaller."""
    torch.manual_seed(0)
    net, whole = (cases07.Roomy(room, 1.0).double() for room in (4, 10))
    xt, noise = (torch.randn(10, 1, 3, 3, dtype=torch.float64) for _ in range(2))
    t = torch.randint(1, 9, (10,))
    loss = lesson07.accumulated_gradient(net, xt, t, noise, 4, most=1e6)
    wanted = F.mse_loss(whole(xt, t), noise)
    wanted.backward()
    assert abs(loss - wanted.item()) < 1e-10
    for mine, theirs in zip(net.parameters(), whole.parameters(), strict=True):
        assert (mine.grad - theirs.grad).abs().max() < 1e-10


def test_a_step_does_what_torchs_own_scaler_does():
    right = checks.expected.expected(checks.scaled_step.exercise).values
    for case, value in zip(checks.scaled_step.cases, right, strict=True):
        _, optimizer, batches, scale, good, *interval = case.args
        net = cases07.InHalf()
        optimizer = type(optimizer)(net.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=(interval or [2000])[0])
        scaler._init_growth_tracker = good
        scales = []
        for x in batches:
            loss = (net(torch.where(x.abs() < cases07.BEYOND, x, torch.nan)) - 1).square().mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        assert value["list of scales"] == scales, case.label
        assert torch.equal(value["row of weights after each step"][-1], cases07.weights(net)), case.label


def test_what_is_resumed_goes_on_as_what_never_stopped():
    """Bit for bit, losses, weights and averaged weights."""
    images = torch.randn(10, 3).clamp(-1, 1)
    torch.manual_seed(5)
    run = lesson07.begun(images, 12)
    losses = [run.take_step() for _ in range(9)]
    torch.manual_seed(5)
    first = lesson07.begun(images, 12)
    before = [first.take_step() for _ in range(5)]  # in the middle of a round
    file = io.BytesIO()
    torch.save(lesson07.state_to_save(first), file)
    file.seek(0)
    torch.manual_seed(77)
    other = lesson07.begun(images, 20)
    other.load(torch.load(file, weights_only=True))
    assert before + [other.take_step() for _ in range(4)] == losses
    for name in ("net", "average"):
        pairs = zip(getattr(run, name).parameters(), getattr(other, name).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_state_of_objects_is_refused_by_name():
    verdict = typed.judge("state_to_save", '{"net": run.net, "step": run.step}')
    assert verdict.status == "wrong" and "under `net` there is a Sequential" in " ".join(verdict.text), verdict


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1"])
def test_a_square_is_the_one_that_load_images_makes(tmp_path, mode):
    """Which crops first and resizes then: so the two agree to a few levels, on a smooth picture."""
    rows, columns = np.mgrid[:90, :140]
    smooth = np.stack([rows, columns, (rows + columns) / 2], -1) * 1.5 + 20
    picture = Image.fromarray(smooth.astype(np.uint8)).convert("L" if mode == "1" else "RGB")
    if mode in ("LA", "RGBA"):
        picture = picture.convert("RGBA")
        picture.putalpha(Image.fromarray((columns * 1.8).astype(np.uint8)))
    picture = picture.point(lambda level: 255 * (level > 90), "1") if mode == "1" else picture.convert(mode)
    picture.save(tmp_path / "picture.png")
    theirs = torch.from_numpy(open_picture(tmp_path / "picture.png", 32).copy()).expand(3, -1, -1).int()
    mine = lesson07.to_square(Image.open(tmp_path / "picture.png"), 32).int()
    off = (mine - theirs).abs().double()
    assert off.mean() < (8 if mode == "1" else 4), off.mean()  # black and white has edges
