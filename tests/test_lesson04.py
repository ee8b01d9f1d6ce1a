"""What lesson 04 claims, against independent truths: what is given, what is kept, what learns, what is left out."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from core import perturbed
from torch import nn

from ddpm_course import blocks
from ddpm_course.blocks import linear_attention
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.exercises import lesson04
from ddpm_course.plots.lesson04 import kept_megabytes
from ddpm_course.schedules import Schedule
from ddpm_course.training import train
from ddpm_course.unet import UNet


def shaken(make) -> nn.Module:
    """A network none of whose weights is 0, as some are before training; the same each time."""
    torch.manual_seed(0)
    return perturbed(make(widths=(16, 32))).eval()


def test_what_is_kept_for_the_backward_pass_grows_as_the_lesson_says():
    """Twice the side: 16 times the table by hand, 4 times everything in PyTorch's and in linear attention."""

    def megabytes(f, side):
        return kept_megabytes(f, *(torch.randn(1, 4, side**2, 16) for _ in range(3)))

    assert 14 < megabytes(lesson04.attention, 32) / megabytes(lesson04.attention, 16) <= 16
    for f in (F.scaled_dot_product_attention, linear_attention):
        assert 3.8 < megabytes(f, 32) / megabytes(f, 16) < 4.2
    assert megabytes(lesson04.attention, 32) > 4 * 1024**2 * 4 / 1e6  # heads x positions² x bytes of a float32


@torch.no_grad()
def test_without_time_every_t_is_500(lesson):
    classes = (lesson.run("ablation-parts")["WithoutTime"], UNet)
    net, whole = (shaken(each) for each in classes)
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 900])
    assert torch.equal(net(x, t), net(x, t.flip(0))) and not torch.equal(whole(x, t), whole(x, t.flip(0)))
    assert (net(x, t) - whole(x, torch.full((2,), 500))).abs().max() < 1e-5


@torch.no_grad()
def test_without_skips_the_way_up_reads_zeros_there_and_only_there(lesson):
    without_skips = lesson.run("ablation-parts")["without_skips"]
    net, whole = without_skips(shaken(UNet)), shaken(UNet)
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 900])
    assert (net(x, t) - whole(x, t)).abs().max() > 0.01
    assert (net(x, t) - net(x, t.flip(0))).abs().max() > 0.01  # t still reaches it
    way_up = [layer for layer in whole.up if isinstance(layer, blocks.ResidualBlock)]
    assert len(way_up) == 4
    for layer, before in zip(way_up, [whole.middle2, *way_up], strict=False):

        def erase(layer, args, below=before.conv2.out_channels):  # what comes from below stands before the skip
            args[0][:, below:] = 0

        layer.register_forward_pre_hook(erase)
    assert (net(x, t) - whole(x, t)).abs().max() < 1e-5


def test_somebody_elses_network_trains_in_the_courses_loop_and_counts_from_0(lesson):
    """One that answers as diffusers' do. In a chain of one step t = T arrives as T - 1."""
    inner, layer, given = nn.Module(), nn.Conv2d(1, 1, 3, padding=1), []
    inner.layer = layer
    inner.forward = lambda x, t: given.append(t) or SimpleNamespace(sample=layer(x))
    net, one_step = lesson.run("else")["Adapter"](inner), GaussianDiffusion(Schedule(torch.tensor([0.5])))
    before, images = layer.weight.clone(), torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    assert train(net, one_step, images, steps=6, batch_size=8, device="cpu").step == 6
    assert torch.cat(given).unique().tolist() == [0] and not torch.equal(layer.weight, before)


def test_a_guess_stands_below_the_answer_and_an_empty_one_leaves_no_trace(lesson):
    given = {"transposed_convolution": lesson04.transposed_convolution}
    empty, guessed = (lesson.run("paint", guess_middle=guess, **given)["printed"] for guess in (None, 9))
    assert "in the middle: 10" in empty and "guess" not in empty and "None" not in empty
    assert guessed.replace("your guess: 9\n", "") == empty != guessed


def test_the_broken_wrapper_has_the_faults_that_the_tests_beside_it_show(lesson):
    """And the fourth, which nothing shows for 28 x 28: the answer lies four rows and columns off."""
    left = lesson.run("sizes", "sizes-broken", "sizes-tests", "sizes-tried")
    assert left["printed"].count("False") == 2 and "must be multiples of 8" in left["printed"].split("24 × 28:")[1]
    x, t = torch.zeros(1, 1, 28, 28), torch.tensor([500])
    x[..., 20, 10] = 1
    with torch.no_grad():
        padded = left["deep"](F.pad(x, (0, 4, 0, 4)), t)
        assert torch.equal(left["broken_any_size"](left["deep"], x, t), padded[..., 4:, 4:])
        assert torch.equal(lesson04.any_size(left["deep"], x, t), padded[..., :28, :28])
    mended = lesson.run(
        "sizes", "sizes-broken", "sizes-tests", "sizes-tried", "sizes-mended", any_size=lesson04.any_size
    )
    assert (
        mended["printed"].split("24 × 28:")[2] == " answers (2, 1, 24, 28)\n" and mended["printed"].count("True") == 2
    )
