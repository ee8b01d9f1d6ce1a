"""GPU code without a GPU: fake CUDA tensors find device mismatches, and values that are pulled to the host.

Fake tensors have a shape, a dtype and a device, but no values: reading one raises. Backward, CUDA's autocast and CUDA's
generators do not work on them, so the training step is watched on the CPU, by the profiler.
"""

import contextlib
import itertools
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.tensor  # noqa: F401 - now, not by what a test calls while it has put something in torch's place
import torchgen
import yaml
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ddpm_course import checks, training, training_step
from ddpm_course.checks.running import Betas
from ddpm_course.data import to_unit_range
from ddpm_course.devices import mixed_precision
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample, q_step
from ddpm_course.losses import bits_per_dim, diffusion_loss, variational_term
from ddpm_course.samplers import ancestral_steps, ddim_steps, guided, sample
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training_step import EMA, Batches
from ddpm_course.unet import UNet

sys.path.insert(0, str(Path(__file__).parent))

from test_checks_lessons import solution  # noqa: E402

OTHER_BLOCKS = dict(
    self_condition=True, attention=("linear", "full"), conv="standardised", time="add", middle="linear",
    downsample="space_to_depth", upsample="transposed",
)  # fmt: skip


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


def beside_a_gpu(predicts, variance):
    """A diffusion whose tables are the host's."""
    schedule = cosine_schedule()
    for name in ("beta", "alpha", "alpha_bar"):
        setattr(schedule, name, getattr(schedule, name).as_subclass(HostTable))
    return GaussianDiffusion(schedule, predicts, variance)


@pytest.fixture
def on_fake_cuda():
    """A diffusion whose tables are the host's, and everything that is built inside on a fake GPU."""

    @contextlib.contextmanager
    def enter(predicts="v", variance="small"):
        diffusion = beside_a_gpu(predicts, variance)
        with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
            yield diffusion
        for (_, _, device), table in diffusion.schedule._on_device.items():
            assert isinstance(table, FakeTensor) and table.device.type == device.type == "cuda"

    return enter


def assert_on_cuda(*tensors):
    for tensor in tensors:
        assert isinstance(tensor, FakeTensor) and tensor.device.type == "cuda", tensor


def test_the_fake_gpu_objects_to_what_a_real_one_would_suffer_from(on_fake_cuda):
    """The tests below prove something only if these are caught."""
    with on_fake_cuda():
        x = torch.randn(4)
        with pytest.raises(DataDependentOutputException):
            x.sum().item()
        with pytest.raises(DataDependentOutputException):
            bool((x > 0).all())
        with pytest.raises(RuntimeError, match="device"):
            x + torch.randn(4, device="cpu")


@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
def test_forward_process_and_posterior_stay_on_the_gpu(on_fake_cuda, predicts):
    with on_fake_cuda(predicts) as diffusion:
        schedule = diffusion.schedule
        x0, noise = torch.randn(4, 1, 28, 28), torch.randn(4, 1, 28, 28)
        for t in (torch.full((4,), 7), schedule.sample_t(4, device="cuda"), 7):
            xt = q_sample(schedule, x0, t, noise)
            assert_on_cuda(xt, q_step(schedule, x0, t, noise), diffusion.target(x0, noise, t))
            assert_on_cuda(*diffusion.decode(noise, xt, t))
            assert xt.dtype == torch.float32
        for t, s in itertools.product((7, torch.full((4,), 7)), (3, torch.full((4,), 3))):
            assert_on_cuda(*q_posterior(schedule, x0, x0, t, s))


def test_t_on_another_device_than_the_data_is_named(on_fake_cuda):
    """Indexing a CPU table with a CUDA tensor is an error that names neither; check_t catches both directions."""
    with on_fake_cuda() as diffusion:
        x0 = torch.randn(4, 2)
        t = torch.ones(4, dtype=torch.int64, device="cpu")
        for use in (
            lambda: q_sample(diffusion.schedule, x0, t, x0),
            lambda: q_posterior(diffusion.schedule, x0, x0, t, 0),
        ):
            with pytest.raises(ValueError, match="t is on cpu but the data is on cuda"):
                use()


@pytest.mark.parametrize(
    "exercise",
    [checks.q_step, checks.q_sample, checks.predict_x0, checks.posterior, checks.mean_from_noise, checks.estimate_x0],
    ids=lambda e: e.name,
)
def test_the_lessons_solutions_stay_on_the_gpu(on_fake_cuda, exercise):
    """Every case of an exercise that looks numbers up at the t of a batch, as the lesson would call it with a GPU."""
    function = solution(exercise)
    with on_fake_cuda() as diffusion:
        for case in exercise.cases:
            on_gpu = [a.to("cuda") if isinstance(a, torch.Tensor) else a for a in case.args]
            result = function(*(diffusion.schedule if isinstance(a, Betas) else a for a in on_gpu))
            assert_on_cuda(*(result if isinstance(result, tuple) else (result,)))


@pytest.mark.parametrize("kind", ["l2", "l1", "huber"])
def test_network_and_loss_stay_on_the_gpu(on_fake_cuda, kind):
    with on_fake_cuda() as diffusion:
        net = UNet(num_classes=10, dropout=0.1)
        images = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
        x0 = to_unit_range(images)
        for y in (None, torch.randint(0, 11, (4,))):
            loss = diffusion_loss(net, diffusion, x0, y, kind)
            assert_on_cuda(loss)
            assert loss.shape == (4,)


def test_every_block_and_self_conditioning_stay_on_the_gpu(on_fake_cuda):
    with on_fake_cuda() as diffusion:
        net = UNet(num_classes=10, **OTHER_BLOCKS)
        x0, y = torch.randn(4, 1, 28, 28), torch.randint(0, 10, (4,))
        assert_on_cuda(diffusion_loss(net, diffusion, x0, y))
        for step in ddim_steps(guided(net, 2.0), diffusion, (2, 1, 28, 28), 3, y=y[:2]):
            assert_on_cuda(step.x, step.x0)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
def test_samplers_stay_on_the_gpu(on_fake_cuda, predicts, variance):
    with on_fake_cuda(predicts, variance) as diffusion:
        net = UNet(num_classes=10)
        y = torch.randint(0, 10, (2,))
        for steps in (
            ancestral_steps(net, diffusion, (2, 1, 28, 28), 3, y=y),
            ddim_steps(net, diffusion, (2, 1, 28, 28), 3, eta=0.5),
            ddim_steps(guided(net, 2.0), diffusion, (2, 1, 28, 28), 3, y=y),
            ancestral_steps(net, diffusion, (2, 1, 28, 28), 3, x_T=torch.randn(2, 1, 28, 28)),
        ):
            for step in steps:
                assert_on_cuda(step.x, step.x0)


def test_moving_average_and_batches_stay_on_the_gpu(on_fake_cuda):
    with on_fake_cuda():
        net = UNet(num_classes=10)
        ema = EMA(net)
        ema.update(net)
        assert_on_cuda(*ema.net.parameters())
        images, batches = torch.zeros(10, 1, 8, 8, dtype=torch.uint8), Batches(10, 4, "cuda", None)
        for _ in range(3):
            rows = next(batches)
            x = to_unit_range(images[rows])
            assert_on_cuda(rows, x)
            assert x.shape == (4, 1, 8, 8) and x.dtype == torch.float32


# ---- the profiler: nothing waits ----

PULLS = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal")


def pulls(work):
    """The names of calls that read a value back to Python while `work` runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    return sorted({event.name for event in profile.events() if event.name in PULLS})


@pytest.fixture(scope="module")
def ready():
    torch.manual_seed(0)
    net = UNet(num_classes=10, dropout=0.1)
    diffusion = GaussianDiffusion(cosine_schedule(), "v")
    x, y = torch.rand(4, 1, 28, 28) * 2 - 1, torch.arange(4)
    diffusion_loss(net, diffusion, x, y)  # fills the tables' cache
    return net, diffusion, x, y


def test_the_profiler_sees_a_pull():
    assert pulls(lambda: torch.ones(3).sum().item()) == ["aten::_local_scalar_dense", "aten::item"]


def test_nothing_waits_in_loss_backward_clipping_or_moving_average(ready):
    net, diffusion, x, y = ready
    ema = EMA(net)

    def step():
        diffusion_loss(net, diffusion, x, y).mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        ema.update(net)

    assert pulls(step) == []


def test_nothing_waits_in_self_conditioning(ready):
    _, diffusion, x, y = ready
    net = UNet(num_classes=10, self_condition=True)
    assert pulls(lambda: diffusion_loss(net, diffusion, x, y).mean().backward()) == []
    steps = ddim_steps(net, diffusion, (4, 1, 28, 28), 4, y=y)
    next(steps)
    assert pulls(lambda: sample(steps, progress=False)) == []


def test_nothing_waits_in_a_sampling_step(ready):
    net, diffusion, _, y = ready
    for make in (ancestral_steps, ddim_steps):
        steps = make(net, diffusion, (4, 1, 28, 28), 10, y=y)
        next(steps)
        assert pulls(lambda steps=steps: sample(steps, progress=False)) == []
    steps = ancestral_steps(guided(net, 2.0), diffusion, (4, 1, 28, 28), 10, y=y)
    next(steps)
    assert pulls(lambda: sample(steps, progress=False)) == []


def test_nothing_waits_in_the_training_loop_between_reports(ready, monkeypatch):
    """All of `train` for 12 steps, reports every 6: two values are read, by the reports. AdamW's own bookkeeping, which
    reads its step counters on the CPU only, is left out by a plain optimizer in its place."""
    _, diffusion, _, _ = ready

    class Plain(torch.optim.SGD):
        def __init__(self, parameters, lr, betas, fused):
            super().__init__(parameters, lr=lr)

    monkeypatch.setattr(torch.optim, "AdamW", Plain)
    images = torch.randint(0, 256, (32, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(32) % 10
    net = UNet(widths=(8,), heads=2, num_classes=10)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        training.train(net, diffusion, images, labels, steps=12, batch_size=4, device="cpu", report_every=6)
    reads = [event.name for event in profile.events() if event.name in PULLS]
    assert reads.count("aten::_local_scalar_dense") == 2 and reads.count("aten::item") == 2 and len(reads) == 4


# ---- copies ----


class Made(TorchDispatchMode):
    """What PyTorch makes while this lasts: (operation, device, dtype) of every tensor, and how many are copies of the
    host's on a GPU."""

    def __init__(self):
        super().__init__()
        self.tensors, self.copies = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.tensors.add((func.name().removeprefix("aten::"), x.device.type, x.dtype))
                if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" != x.device.type:
                    self.copies += 1
        return result


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("t", [7, 1])
def test_a_term_of_the_bound_at_an_int_t_copies_nothing_to_the_gpu(on_fake_cuda, variance, t):
    """The host would wait for a copy. The first call brings the schedule's tables there."""
    with on_fake_cuda("v", variance) as diffusion:
        x0 = torch.randn(4, 1, 8, 8)
        with Made() as first:
            variational_term(lambda x, t, y: 0.3 * x, diffusion, x0, t)
        with Made() as second:
            assert_on_cuda(variational_term(lambda x, t, y: 0.3 * x, diffusion, x0, t))
        assert first.copies > 0 and second.copies == 0


# ---- Apple's GPU: it has no float64, and not every operation ----


@pytest.fixture(scope="module")
def not_on_mps():
    """The operations without a kernel for Apple's GPU, by the list of all operations that comes with PyTorch.

    One that is composed of others needs no kernel; one that delegates is as its delegate.
    """
    file = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    entries = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    entries = {entry["func"].split("(")[0]: entry for entry in entries}

    def runs(entry):
        if "structured_delegate" in entry:
            return runs(entries[entry["structured_delegate"]])
        keys = ",".join(entry.get("dispatch", ["Composite"]))
        return "MPS" in keys or "Composite" in keys

    return {name for name, entry in entries.items() if not runs(entry)}


class Lookup(TorchFunctionMode):
    """table[t] asks for a driver where the table is on a fake Apple GPU; the operation behind it does not."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__ and args[0].device.type == "mps":
            table, t = args
            return table.select(0, t) if isinstance(t, int) else torch.ops.aten.index(table, [t])
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def on_fake_mps():
    """Tensors with device="mps" are fake. Neither autograd nor attention works on them, so no network does."""
    with FakeTensorMode(allow_non_fake_inputs=True), Lookup():
        yield


def assert_runs_on_mps(made, not_on_mps):
    there = {(name, dtype) for name, device, dtype in made.tensors if device == "mps"}
    wrong = [(name, dtype) for name, dtype in there if name in not_on_mps or dtype == torch.float64]
    assert there and not wrong, wrong


def test_what_does_not_run_on_apples_gpu_would_be_seen(not_on_mps):
    for use, said in (
        (lambda x: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(x, x, x), "flash_attention_for_cpu"),
        (lambda x: x.double(), "float64"),
    ):
        with on_fake_mps(), Made() as made:
            use(torch.randn(1, 1, 4, 4, device="mps"))
        with pytest.raises(AssertionError, match=said):
            assert_runs_on_mps(made, not_on_mps)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
def test_loss_samplers_and_bound_run_on_apples_gpu(not_on_mps, predicts, variance):
    """With a multiplication for a network. The bound runs until its numbers are the host's, where the fake mode ends."""
    diffusion = beside_a_gpu(predicts, variance)
    calls = []

    def net(x, t, y=None):
        calls.append(t)
        return 0.3 * x

    with on_fake_mps():
        images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, device="mps")
        x0, t = to_unit_range(images), diffusion.schedule.sample_t(4, device=images.device)
        for use in (
            lambda: diffusion_loss(net, diffusion, to_unit_range(images), t=t),
            lambda: sample(ancestral_steps(net, diffusion, x0.shape, 3, device=x0.device), progress=False),
            lambda: sample(ddim_steps(net, diffusion, x0.shape, 3, device=x0.device, eta=0.5), progress=False),
            lambda: variational_term(net, diffusion, x0, 7),
        ):
            with Made() as made:
                result = use()
            assert result.device.type == "mps" and result.dtype == torch.float32
            assert_runs_on_mps(made, not_on_mps)
        for continuous in (False, True):
            calls.clear()
            with Made() as made, pytest.raises(DynamicOutputShapeException, match="repeat_interleave"):
                bits_per_dim(net, diffusion, images, steps=4, continuous=continuous, device=images.device)
            assert len(calls) == 4
            assert_runs_on_mps(made, not_on_mps)


@pytest.mark.parametrize("blocks", [{}, OTHER_BLOCKS], ids=["plain", "other"])
def test_what_training_and_a_network_use_is_there_on_apples_gpu(not_on_mps, blocks):
    """Run on the CPU, with backward and AdamW; attention alone has an operation of its own for each device."""
    diffusion = GaussianDiffusion(cosine_schedule(50), "v")
    images, labels = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8), torch.arange(8) % 3
    net = UNet(widths=(8, 16), heads=2, num_classes=3, dropout=0.1, **blocks)
    x0 = to_unit_range(images)
    diffusion_loss(net, diffusion, x0, labels)  # makes the schedule's tables, in float64
    with Made() as made:
        training.train(net, diffusion, images, labels, steps=2, batch_size=4, device="cpu", report_every=1)
        guided(net, 2.0)(x0, torch.ones(8, dtype=torch.int64), labels)
    names = {name for name, _, _ in made.tensors if "attention" not in name}
    assert "convolution_backward" in names
    assert not names & not_on_mps, names & not_on_mps
    assert torch.float64 not in {dtype for _, _, dtype in made.tensors}


# ---- precision ----


@pytest.mark.parametrize(
    "machine, device_type, bf16_in_hardware, precision",
    [
        ("T4", "cuda", False, torch.float16),
        ("A100", "cuda", True, torch.bfloat16),
        ("Apple M2", "mps", True, None),
        ("Apple M1", "mps", False, None),
        ("a CPU with bf16", "cpu", True, None),
        ("a CPU", "cpu", False, None),
    ],
)
def test_precision_for_each_kind_of_machine(machine, device_type, bf16_in_hardware, precision):
    assert mixed_precision(device_type, bf16_in_hardware) is precision


def test_a_t4s_emulated_bf16_is_not_asked_for(monkeypatch):
    """train() must ask without emulation: with it, a T4 says yes."""
    asked = {}

    def supported(including_emulation=True):
        asked["emulation"] = including_emulation
        return including_emulation

    class Stop(Exception):
        pass

    def stop(device_type, bf16_in_hardware):
        asked["answer"] = (device_type, bf16_in_hardware)
        raise Stop

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(training_step, "mixed_precision", stop)
    monkeypatch.setattr(torch, "Generator", lambda device: _NoGenerator())
    images, diffusion = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), GaussianDiffusion(cosine_schedule())
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(Stop):
        training.train(torch.nn.Identity(), diffusion, images, steps=1, device="cuda")
    assert asked == {"emulation": False, "answer": ("cuda", False)}


class _NoGenerator:
    """CUDA generators do not exist here; the test above stops before one is used."""

    def manual_seed(self, seed):
        return self


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
def test_training_in_half_precision_follows_float32(monkeypatch, precision):
    """The path of a T4 (autocast to float16, scaled loss, unscaled before clipping) run on the CPU: 40 steps on 64 images,
    same seeds. Losses agree with float32's to 3 %, the first gradients' norms at clipping to 10 %, the weights stay float32 and finite, only the network is autocast."""
    images = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    diffusion = GaussianDiffusion(cosine_schedule(), "v")
    scales, norms, seen = [], [], set()
    update = torch.amp.GradScaler.update
    monkeypatch.setattr(torch.amp.GradScaler, "update", lambda self: (update(self), scales.append(self.get_scale())))
    clip = torch.nn.utils.clip_grad_norm_

    def watched_clip(parameters, limit):
        norms.append(clip(parameters, limit).item())

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched_clip)

    def run():
        torch.manual_seed(0)
        net = UNet(widths=(16,), heads=2)
        net.out.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
        return training.train(net, diffusion, images, steps=40, batch_size=16, device="cpu", report_every=10)

    exact = run()
    assert seen == {torch.float32} and set(scales) == {1.0}
    exact_norms = norms[:10]
    for record in (scales, norms, seen):
        record.clear()
    monkeypatch.setattr(training_step, "mixed_precision", lambda device_type, bf16: precision)
    half = run()
    assert seen == {precision}
    assert set(scales) == ({1.0} if precision == torch.bfloat16 else {65536.0})
    for (_, a), (_, b) in zip(exact.losses, half.losses, strict=True):
        assert abs(a / b - 1) < 0.03
    for a, b in zip(exact_norms, norms[:10], strict=True):  # of unscaled gradients; Adam would hide the difference
        assert abs(a / b - 1) < 0.1
    for parameter in half.net.parameters():
        assert parameter.dtype == torch.float32 and bool(parameter.isfinite().all())
