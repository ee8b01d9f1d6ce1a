"""Lesson 04's exercises, where there is more to test than a verdict: networks among the arguments, and the file."""

import pytest
import torch
import torch.nn.functional as F
import typed

from ddpm_course import checks
from ddpm_course.checks import library
from ddpm_course.checks.entries import CannotSave
from ddpm_course.exercises import lesson04
from ddpm_course.training import load_pretrained


def test_the_blocks_own_dropout_is_no_reproach():
    """Two cases have it on, and there the right answer draws as well."""
    text = checks.residual_forward.exercise.cell.replace("h * (1 + scale)", "h + scale")
    verdict = checks.residual_forward.check(typed.typed("residual_forward", text))
    assert verdict.status == "wrong" and "random" not in " ".join(verdict.text), verdict


def test_networks_among_the_arguments_are_copies():
    """A student's function may not change the weights of a network, and never reaches the course's own."""
    (net, *_), *_ = (case.args for case in checks.unet_forward.cases)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def meddling(net, x, t, y=None):
        out = lesson04.unet_forward(net, x, t, y)
        with torch.no_grad():
            net.stem.weight.zero_()
        return out

    verdict = checks.unet_forward.check(meddling)
    assert (verdict.status, verdict.problem) == ("wrong", "changed") and "`net`" in " ".join(verdict.text)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_file_holds_a_network_that_loads_the_bundled_weights(tmp_path):
    """unet_forward alone is the student's here; the rest comes along as given, and replaces nothing that is theirs."""
    text = library.add(library.HEADER, library.BY_NAME["unet_forward"], lesson04.unet_forward)
    assert "import ddpm_course" not in text and "from ddpm_course" not in text
    namespace = library.execute(text)
    trained, _, about = load_pretrained("cpu")
    mine = namespace["MyUNet"](**about["network"]).eval()
    mine.load_state_dict(trained.state_dict())
    x, t, y = torch.randn(3, 1, 28, 28), torch.tensor([1, 500, 1000]), torch.tensor([0, 5, 10])
    with torch.no_grad():
        assert (mine(x, t, y) - trained(x, t, y)).abs().max() < 1e-4
        assert (mine(x, t) - trained(x, t)).abs().max() < 1e-4
    given = library.given_names(text)
    assert {"MyUNet", "attention", "residual_forward", "skip_channels", "sinusoidal_embedding"} <= given
    assert "unet_forward" not in given
    text = library.add(text, library.BY_NAME["residual_forward"], lesson04.residual_forward)
    assert "residual_forward" not in library.given_names(text)
    assert library.execute(text)["residual_forward"] is not None


def test_a_lambda_is_not_saved_but_passes():
    with pytest.raises(CannotSave):
        library.add(
            library.HEADER, library.BY_NAME["attention"], lambda q, k, v: F.scaled_dot_product_attention(q, k, v)
        )
