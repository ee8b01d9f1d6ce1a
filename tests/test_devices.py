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
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily as among_real_tensors
from torch.utils._pytree import tree_leaves, tree_map_only
from trainings import DIFFUSION, IMAGES, go, unet

from ddpm_course.bound import variational_term
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample, q_step
from ddpm_course.losses import diffusion_loss
from ddpm_course.nets import Guided
from ddpm_course.pixels import to_unit_range
from ddpm_course.samplers import ancestral_steps, ddim_steps, sample
from ddpm_course.schedules import cosine_schedule
from ddpm_course.training import step
from ddpm_course.training.devices import mixed_precision
from ddpm_course.training.step import EMA, Batches

OTHER_BLOCKS = dict(
    widths=(8, 16), self_condition=True, attention=("linear", "full"), conv="standardised", time="add", middle="linear",
    downsample="space_to_depth", upsample="transposed",
)  # fmt: skip
SHAPE = (4, 1, 8, 8)
LABELS = torch.tensor([0, 1, 2, 0])  # of the host: a sampler reads them once, at its start


class HostTable(torch.Tensor):
    """A table that stays real inside the fake mode, as it does beside a real GPU, until it meets the GPU's tensors.

    On the host's own tables .tolist() and == wait for nobody, and only fake tensors should object to them.
    """

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        given = tree_leaves((args, kwargs := kwargs or {}))
        fake = [a for a in given if isinstance(a, FakeTensor)]
        if func is torch.Tensor.__getitem__ and any(a.device.type != "cpu" for a in fake):  # the fake mode allows it
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        with among_real_tensors():
            if not fake and not any(str(a).startswith("cuda") for a in given[1:]):
                return super().__torch_function__(func, types, args, kwargs)
            args, kwargs = tree_map_only(HostTable, lambda a: a.as_subclass(torch.Tensor).clone(), (args, kwargs))
        return func(*args, **kwargs)


@contextlib.contextmanager
def fake_gpu(predicts="v", variance="small"):
    """A diffusion whose tables are the host's; tensors made inside with device="cuda" are fake."""
    schedule = cosine_schedule()
    for name in ("beta", "alpha", "alpha_bar"):
        setattr(schedule, name, getattr(schedule, name).as_subclass(HostTable))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        yield GaussianDiffusion(schedule, predicts, variance)
    for (_, _, device), table in schedule._on_device.items():
        assert device.type == "cpu" or (isinstance(table, FakeTensor) and table.device.type == device.type)


def assert_there(*tensors):
    for tensor in tensors:
        assert isinstance(tensor, FakeTensor) and tensor.device.type == "cuda", tensor


def test_the_fake_gpu_objects_to_what_a_real_one_would_suffer_from():
    with fake_gpu():
        x = torch.randn(4)
        for pull in (lambda: x.sum().item(), lambda: bool((x > 0).all())):
            with pytest.raises(DataDependentOutputException):
                pull()
        with pytest.raises(RuntimeError, match="device"):
            x + torch.randn(4, device="cpu")


@pytest.mark.parametrize("predicts, variance", [("noise", "small"), ("x0", "large"), ("v", "small"), ("v", "learned")])
@pytest.mark.parametrize("blocks", [{}, OTHER_BLOCKS], ids=["plain", "other"])
def test_everything_stays_on_the_gpu(predicts, variance, blocks):
    """Forward process, posterior, terms of the bound; batches, networks, losses, averages and samplers."""
    with fake_gpu(predicts, variance) as diffusion:
        schedule, x0, noise, y = diffusion.schedule, torch.randn(SHAPE), torch.randn(SHAPE), torch.randint(0, 3, (4,))
        batch = {t: torch.full((4,), t) for t in (3, 7)}
        for t in (batch[7], schedule.sample_t(4, device="cuda"), 7):
            xt = q_sample(schedule, x0, t, noise)
            assert_there(xt, q_step(schedule, x0, t, noise), diffusion.target(x0, noise, t))
            assert_there(*diffusion.decode(noise, xt, t))
            assert xt.dtype == torch.float32
        for t, s in itertools.product((7, batch[7]), (3, batch[3])):
            assert_there(*q_posterior(schedule, x0, x0, t, s))
        elsewhere = torch.ones(4, dtype=torch.int64, device="cpu")
        for use in (partial(q_sample, noise=x0), partial(q_posterior, xt=x0, s=0)):  # indexing a table names neither
            with pytest.raises(ValueError, match="t is on cpu but the data is on cuda"):
                use(schedule, x0, t=elsewhere)

        learned = variance == "learned"
        net, images = unet(dropout=0.1, learn_variance=learned, **blocks), torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
        for rows in itertools.islice(Batches(10, 4, "cuda", None), 3):
            assert_there(rows, to_unit_range(images[rows]))
        for kind, labels in itertools.product(("l2", "l1", "huber"), (None, y)):
            assert_there(diffusion_loss(net, diffusion, x0, labels, kind))
        assert_there(*(variational_term(net, diffusion, x0, t) for t in (7, 1)))
        ema = EMA(net)
        ema.update(net)
        assert_there(*ema.net.parameters())
        for make, given in (ancestral_steps, net), (partial(ddim_steps, eta=0.5), Guided(net, 2.0)):
            for one in make(given, diffusion, SHAPE, 3, y=LABELS):
                assert_there(one.x, one.x0)


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
    net, options = unet(dropout=0.1, self_condition=self_condition), dict(y=LABELS)
    for make, model in (ancestral_steps, net), (ddim_steps, net), (ancestral_steps, Guided(net, 2.0)):
        steps = make(model, DIFFUSION, SHAPE, 10, **options)
        next(steps)  # fills the tables' cache
        assert pulls(lambda steps=steps: sample(steps, progress=False)) == []
    monkeypatch.setattr(torch.optim, "AdamW", lambda weights, lr, betas, fused: torch.optim.SGD(weights, lr=lr))
    reads = pulls(lambda: go(12, net=net, report_every=6))
    assert reads == ["aten::_local_scalar_dense"] * 2 + ["aten::item"] * 2


@pytest.mark.parametrize("hardware, precision", [(True, torch.bfloat16), (False, torch.float16)], ids=["A100", "T4"])
def test_precision_for_each_kind_of_machine(monkeypatch, hardware, precision):
    """Asked with emulation, a T4 would say yes to bfloat16."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: hardware or including_emulation
    )
    assert mixed_precision(torch.device("cuda")) == precision
    assert mixed_precision(torch.device("mps")) is mixed_precision(torch.device("cpu")) is None


def test_training_in_half_precision_follows_float32(monkeypatch):
    """The path of a T4 (autocast to float16, scaled loss, unscaled before clipping) and of an A100 run on the CPU: 40
    steps, same seeds. Losses agree with float32's to 3 %, the first gradients' norms at clipping to 10 % (of unscaled
    gradients; Adam would hide the difference), the weights stay float32."""
    update, clip, found = torch.amp.GradScaler.update, torch.nn.utils.clip_grad_norm_, {}
    for precision in (None, torch.float16, torch.bfloat16):
        scales, norms = set(), []
        monkeypatch.setattr(step, "mixed_precision", lambda device, precision=precision: precision)
        monkeypatch.setattr(
            torch.amp.GradScaler, "update", lambda self, at=scales: at.add(self.get_scale()) or update(self)
        )
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *limit, to=norms: to.append(clip(*limit).item()))
        net = unet(widths=(16,), num_classes=None)
        losses = go(40, net=net, images=IMAGES[:32], labels=None, batch_size=16, report_every=10).losses
        assert scales == {65536.0 if precision == torch.float16 else 1.0}
        assert all(p.dtype == torch.float32 for p in net.parameters())
        found[precision] = torch.tensor([loss for _, loss in losses]), torch.tensor(norms[:10])
        for half, full, most in zip(found[precision], found[None], (0.03, 0.1), strict=True):
            assert torch.equal(half, full) == (precision is None) and (half / full - 1).abs().max() < most
