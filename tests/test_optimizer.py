"""Muon and AdamW in one optimizer, each against an independent one."""

import copy

import pytest
import torch
from core import seeded
from torch import nn

from ddpm_course.training.optimizer import Muon, matrices_inside, orthogonalise
from ddpm_course.unet import UNet


def little_net() -> UNet:
    torch.manual_seed(0)
    return UNet(1, (16, 32), blocks=1, patch=2, num_classes=3)


def with_gradients(net: nn.Module, seed: int = 1) -> nn.Module:
    generator = seeded(seed)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return net


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_orthogonalising_keeps_the_directions_and_evens_their_lengths(shape):
    matrix = torch.randn(1, *shape, generator=seeded(), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    middle = u.mT @ orthogonalise(matrix) @ vh.mT  # diagonal where the singular vectors are the same
    lengths = middle.diagonal(dim1=1, dim2=2)
    assert (middle - torch.diag_embed(lengths)).abs().max() < 1e-10
    assert lengths.min() > 0.6 and lengths.max() < 1.25


def test_matrices_inside_are_all_but_the_layers_at_the_images_and_the_codes_for_t_and_class():
    net = little_net()
    inside = {id(w) for w in matrices_inside(net)}
    outside = [name for name, w in net.named_parameters() if w.ndim > 1 and id(w) not in inside]
    assert outside == ["time.0.weight", "time.2.weight", "label.weight", "stem.weight", "out.weight"]
    assert all(w.ndim > 1 for w in matrices_inside(net))
    shared = nn.Sequential(a := nn.Linear(32, 32), a)
    assert len(matrices_inside(shared)) == 1
    assert matrices_inside(nn.Linear(32, 32).requires_grad_(False)) == []


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch 2.9 has the first Muon of its own")
@pytest.mark.parametrize("decay", [0.01, 2.0])
@pytest.mark.parametrize("shape", [(48, 32), (32, 48)])
def test_matrices_move_as_with_pytorchs_own_muon(shape, decay):
    """PyTorch's computes in bfloat16, hence the tolerance: 2 % of the way."""
    ours = nn.Linear(shape[1], shape[0], bias=False)
    theirs = copy.deepcopy(ours)
    start = ours.weight.detach().clone()
    mine = Muon(ours, lr=0.004, weight_decay=decay)
    other = torch.optim.Muon(theirs.parameters(), lr=0.02, weight_decay=decay, momentum=0.95)
    for seed in range(3):
        with_gradients(ours, seed), with_gradients(theirs, seed)
        mine.step(), other.step()
    moved, off = ours.weight - start, ours.weight - theirs.weight
    assert off.norm() < 0.02 * moved.norm()


def test_a_convolution_moves_as_the_matrix_that_it_is():
    conv, linear = nn.Conv2d(16, 24, 3, bias=False), nn.Linear(16 * 9, 24, bias=False)
    linear.weight.data.copy_(conv.weight.flatten(1))
    for seed in range(3):
        with_gradients(conv, seed)
        linear.weight.grad = conv.weight.grad.flatten(1).clone()
    for net in (conv, linear):
        Muon(net).step()
    assert (conv.weight.flatten(1) - linear.weight).abs().max() < 1e-6


@pytest.mark.parametrize("decay", [0.01, 2.0])
def test_all_other_weights_move_as_with_adamw(decay):
    net, other = little_net(), little_net()
    inside = {id(w) for w in matrices_inside(other)}
    rest = [p for p in other.parameters() if id(p) not in inside]
    mine = Muon(net, lr=1e-3, weight_decay=decay)
    adamw = torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.99), weight_decay=decay, fused=True)
    for seed in range(3):
        with_gradients(net, seed), with_gradients(other, seed)
        mine.step(), adamw.step()
    for (name, ours), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs) == (id(theirs) not in inside), name


def test_a_state_that_is_loaded_goes_on_bit_for_bit():
    net = little_net()
    optimizer = Muon(net)
    with_gradients(net), optimizer.step()
    again = copy.deepcopy(net)
    other = Muon(again, lr=1.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        with_gradients(net, 5), with_gradients(again, 5)
        optimizer.step(), other.step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), again.parameters(), strict=True))


def test_a_step_that_overflowed_changes_nothing_and_scaled_gradients_are_unscaled():
    net = little_net()
    optimizer = Muon(net)
    with_gradients(net), optimizer.step()
    before, state = copy.deepcopy(net), copy.deepcopy(optimizer.state_dict()["state"])
    for p in net.parameters():
        p.grad.fill_(float("inf"))
    optimizer.found_inf = torch.tensor(1.0)  # as a GradScaler says it
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before.parameters(), strict=True))
    for i, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            assert torch.equal(value, state[i][name]), name

    optimizer.found_inf, optimizer.grad_scale = torch.tensor(0.0), torch.tensor(1024.0)
    with_gradients(net, 2)
    for p in net.parameters():
        p.grad *= 1024
    optimizer.step()
    other = Muon(before)
    other.load_state_dict(dict(optimizer.state_dict(), state=state))
    with_gradients(before, 2), other.step()
    assert all((p - q).abs().max() < 1e-6 for p, q in zip(net.parameters(), before.parameters(), strict=True))
    assert any(not torch.equal(p, q) for p, q in zip(net.parameters(), little_net().parameters(), strict=True))


def test_a_closure_is_called_with_gradients_on():
    net = nn.Linear(32, 32)
    x = torch.ones(1, 32)

    def closure():
        loss = net(x).square().mean()
        loss.backward()
        return loss

    first = Muon(net).step(closure)
    assert net(x).square().mean() < first
