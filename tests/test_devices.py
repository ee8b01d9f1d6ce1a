"""GPU code without a GPU: fake CUDA tensors find device mismatches, and values that are pulled to the host.

Fake tensors have a shape, a dtype and a device, but no values: reading one raises. Backward, CUDA's autocast and CUDA's
generators do not work on them, so the training step is watched on the CPU, by the profiler.
"""

import contextlib
import itertools
from functools import partial

import pytest
import torch
import torch.distributed.tensor  # noqa: F401 - now, not by what a test calls while it has put something in torch's place
from test_checks_lessons import solution
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ddpm_course import checks
from ddpm_course.bound import variational_term
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample, q_step
from ddpm_course.exercises.records import Betas
from ddpm_course.losses import diffusion_loss
from ddpm_course.nets import Guided
from ddpm_course.pixels import to_unit_range
from ddpm_course.samplers import ancestral_steps, ddim_steps, sample
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training import step, train
from ddpm_course.training.devices import mixed_precision
from ddpm_course.training.step import EMA, Batches
from ddpm_course.unet import UNet

OTHER_BLOCKS = dict(
    self_condition=True, attention=("linear", "full"), conv="standardised", time="add", middle="linear",
    downsample="space_to_depth", upsample="transposed",
)  # fmt: skip
SHAPE = (4, 1, 8, 8)


class HostTable(torch.Tensor):
    """A table that stays real inside the fake mode, as it does beside a real GPU, until it meets the GPU's tensors.

    On the host's own tables .tolist() and == wait for nobody, and only fake tensors should object to them.
    """

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        fake = [a for a in given if isinstance(a, FakeTensor)]
        if func is torch.Tensor.__getitem__ and any(
            a.device.type != "cpu" for a in fake
        ):  # the fake mode lets this pass
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if func is torch.Tensor.__getitem__ and fake and args[1].ndim == 0:
            args, fake = (args[0], 0), []  # one entry, whichever: the host reads its own number without waiting
        if fake or func is torch.Tensor.to and any(str(a).startswith(("cuda", "mps")) for a in given[1:]):
            with unset_fake_temporarily():
                args, kwargs = tree_map_only(HostTable, lambda a: a.as_subclass(torch.Tensor).clone(), (args, kwargs))
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            return super().__torch_function__(func, types, args, kwargs)


class Lookup(TorchFunctionMode):
    """table[t] asks for a driver where the table is on a fake Apple GPU; the operation behind it does not."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__ and args[0].device.type == "mps":
            table, t = args
            return table.select(0, t) if isinstance(t, int) else torch.ops.aten.index(table, [t])
        return func(*args, **(kwargs or {}))


class Made(TorchDispatchMode):
    """What PyTorch makes on a GPU while this lasts: the dtypes, and how many tensors are copies of the host's."""

    def __init__(self):
        super().__init__()
        self.dtypes, self.copies = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [x.dtype for x in tree_leaves(result) if isinstance(x, torch.Tensor) and x.device.type != "cpu"]
        self.dtypes.update(made)
        self.copies += bool(made) and func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu"
        return result


@contextlib.contextmanager
def fake_gpu(predicts="v", variance="small"):
    """A diffusion whose tables are the host's; tensors made inside with device="cuda" or "mps" are fake."""
    schedule = cosine_schedule()
    for name in ("beta", "alpha", "alpha_bar"):
        setattr(schedule, name, getattr(schedule, name).as_subclass(HostTable))
    with FakeTensorMode(allow_non_fake_inputs=True), Lookup():
        yield GaussianDiffusion(schedule, predicts, variance)
    for (_, _, device), table in schedule._on_device.items():
        assert device.type == "cpu" or (isinstance(table, FakeTensor) and table.device.type == device.type)


def assert_on(device, *tensors):
    for tensor in tensors:
        assert isinstance(tensor, FakeTensor) and tensor.device.type == device, tensor


def test_the_fake_gpu_objects_to_what_a_real_one_would_suffer_from():
    """The tests below prove something only if these are caught."""
    with fake_gpu(), Made() as made:
        x = torch.randn(4, device="cuda")
        for pull in (lambda: x.sum().item(), lambda: bool((x > 0).all())):
            with pytest.raises(DataDependentOutputException):
                pull()
        with pytest.raises(RuntimeError, match="device"):
            x + torch.randn(4)
        x.double()
    assert torch.float64 in made.dtypes


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
def test_formulas_stay_on_the_gpu(predicts, variance, device):
    """Forward process, posterior, loss and samplers with a multiplication for a network, and terms of the bound. These
    copy nothing at an int t, for which the host would wait; the first call brings the schedule's tables there. Apple's
    GPU has no float64."""
    with fake_gpu(predicts, variance) as diffusion, Made() as made:
        schedule, x0, noise = diffusion.schedule, torch.randn(SHAPE, device=device), torch.randn(SHAPE, device=device)
        batch = {t: torch.full((4,), t, device=device) for t in (3, 7)}
        for t in (batch[7], schedule.sample_t(4, device=device), 7):
            xt = q_sample(schedule, x0, t, noise)
            assert_on(device, xt, q_step(schedule, x0, t, noise), diffusion.target(x0, noise, t))
            assert_on(device, *diffusion.decode(noise, xt, t))
            assert xt.dtype == torch.float32
        for t, s in itertools.product((7, batch[7]), (3, batch[3])):
            assert_on(device, *q_posterior(schedule, x0, x0, t, s))
        for use in (
            q_sample,
            lambda schedule, x0, t, noise: q_posterior(schedule, x0, noise, t, 0),
        ):  # check_t: indexing a table there names neither
            with pytest.raises(ValueError, match=f"t is on cpu but the data is on {device}"):
                use(schedule, x0, torch.ones(4, dtype=torch.int64), x0)

        def net(x, t, y=None):
            return 0.3 * x

        assert_on(device, diffusion_loss(net, diffusion, x0))
        options = dict(shape=SHAPE, steps=3, device=device)
        for make in (ancestral_steps, partial(ddim_steps, eta=0.5)):
            for one in make(net, diffusion, **options):
                assert_on(device, one.x, one.x0)
        for t in (7, 1):
            variational_term(net, diffusion, x0, t)
            with Made() as again:
                assert_on(device, variational_term(net, diffusion, x0, t))
            assert device == "mps" or again.copies == 0  # there some numbers come to the host anyway
    assert device == "cuda" or torch.float64 not in made.dtypes


@pytest.mark.parametrize("blocks", [{}, OTHER_BLOCKS], ids=["plain", "other"])
def test_networks_averages_and_batches_stay_on_the_gpu(blocks):
    with fake_gpu() as diffusion, torch.device("cuda"):
        net, x0, y = UNet(num_classes=10, dropout=0.1, **blocks), torch.randn(SHAPE), torch.randint(0, 10, (4,))
        for kind, labels in itertools.product(("l2", "l1", "huber"), (None, y)):
            loss = diffusion_loss(net, diffusion, x0, labels, kind)
            assert_on("cuda", loss)
            assert loss.shape == (4,)
        ema, images, batches = EMA(net), torch.zeros(10, 1, 8, 8, dtype=torch.uint8), Batches(10, 4, "cuda", None)
        ema.update(net)
        assert_on("cuda", *ema.net.parameters())
        for rows in itertools.islice(batches, 3):
            assert_on("cuda", rows, to_unit_range(images[rows]))
        for steps in (
            ancestral_steps(net, diffusion, SHAPE, 3, y=y, x_T=x0),
            ddim_steps(Guided(net, 2.0), diffusion, SHAPE, 3, y=y),
        ):
            for one in steps:
                assert_on("cuda", one.x, one.x0)


@pytest.mark.parametrize("name", ["q_step", "q_sample", "predict_x0", "posterior", "mean_from_noise", "estimate_x0"])
def test_the_lessons_solutions_stay_on_the_gpu(name):
    """Every case of an exercise that looks numbers up at the t of a batch, as the lesson would call it with a GPU."""
    exercise = getattr(checks, name)
    function = solution(exercise)
    with fake_gpu() as diffusion:
        for case in exercise.cases:
            given = [a.to("cuda") if isinstance(a, torch.Tensor) else a for a in case.args]
            result = function(*(diffusion.schedule if isinstance(a, Betas) else a for a in given))
            assert_on("cuda", *(result if isinstance(result, tuple) else (result,)))


# ---- the profiler: nothing waits ----

PULLS = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal")


def pulls(work):
    """The calls that read a value back to Python while `work` runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    return sorted(event.name for event in profile.events() if event.name in PULLS)


def test_the_profiler_sees_a_pull():
    assert pulls(lambda: torch.ones(3).sum().item()) == ["aten::_local_scalar_dense", "aten::item"]


@pytest.mark.parametrize("self_condition", [False, True])
def test_nothing_waits_in_a_sampling_step_or_in_training_between_reports(monkeypatch, self_condition):
    """12 steps of training with reports every 6: two values are read, by the reports. AdamW's own bookkeeping, which
    reads its step counters on the CPU only, is left out by a plain optimizer in its place."""
    diffusion, labels = GaussianDiffusion(cosine_schedule(), "v"), torch.arange(32) % 10
    net = UNet(widths=(8,), heads=2, num_classes=10, dropout=0.1, self_condition=self_condition)
    for steps in (
        ancestral_steps(net, diffusion, SHAPE, 10, y=labels[:4]),
        ddim_steps(net, diffusion, SHAPE, 10, y=labels[:4]),
        ancestral_steps(Guided(net, 2.0), diffusion, SHAPE, 10, y=labels[:4]),
    ):
        next(steps)  # fills the tables' cache
        assert pulls(lambda steps=steps: sample(steps, progress=False)) == []

    monkeypatch.setattr(torch.optim, "AdamW", lambda weights, lr, betas, fused: torch.optim.SGD(weights, lr=lr))
    images, options = torch.zeros(32, 1, 8, 8, dtype=torch.uint8), dict(batch_size=4, device="cpu", report_every=6)
    reads = pulls(lambda: train(net, diffusion, images, labels, steps=12, **options))
    assert reads == ["aten::_local_scalar_dense"] * 2 + ["aten::item"] * 2


# ---- precision ----


@pytest.mark.parametrize("hardware, precision", [(True, torch.bfloat16), (False, torch.float16)], ids=["A100", "T4"])
def test_precision_for_each_kind_of_machine(monkeypatch, hardware, precision):
    """Asked with emulation, a T4 would say yes to bfloat16."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or hardware
    )
    assert mixed_precision(torch.device("cuda")) == precision
    assert mixed_precision(torch.device("mps")) is mixed_precision(torch.device("cpu")) is None


def test_training_in_half_precision_follows_float32(monkeypatch):
    """The path of a T4 (autocast to float16, scaled loss, unscaled before clipping) and of an A100 run on the CPU: 40
    steps on 64 images, same seeds. Losses agree with float32's to 3 %, the first gradients' norms at clipping to 10 %,
    the weights stay float32 and finite, only the network is autocast."""
    images = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    update, clip = torch.amp.GradScaler.update, torch.nn.utils.clip_grad_norm_

    def run(precision):
        scales, norms, seen = set(), [], set()
        monkeypatch.setattr(step, "mixed_precision", lambda device: precision)
        monkeypatch.setattr(torch.amp.GradScaler, "update", lambda self: (update(self), scales.add(self.get_scale())))
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *limit: norms.append(clip(*limit).item()))
        torch.manual_seed(0)
        net = UNet(widths=(16,), heads=2)
        net.out.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
        diffusion = GaussianDiffusion(cosine_schedule(), "v")
        trained = train(net, diffusion, images, steps=40, batch_size=16, device="cpu", report_every=10)
        assert seen == {precision or torch.float32}
        assert scales == {65536.0 if precision == torch.float16 else 1.0}
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in net.parameters())
        return [loss for _, loss in trained.losses], norms[:10]

    exact_losses, exact_norms = run(None)
    for precision in (torch.float16, torch.bfloat16):
        losses, norms = run(precision)
        assert all(abs(a / b - 1) < 0.03 for a, b in zip(exact_losses, losses, strict=True))
        # of unscaled gradients; Adam would hide the difference
        assert all(abs(a / b - 1) < 0.1 for a, b in zip(exact_norms, norms, strict=True))
