"""Muon for the matrices inside a network, AdamW for everything else: one optimizer (lesson 07).

A convolution from `in` to `out` channels is a matrix too: of out rows and in * k * k columns.
"""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's: singular values go towards 1 fast, and end near it
MOMENTUM = 0.95
SMALLEST = 16  # rows and columns of a matrix inside; the first and the last layer, which see the images, have fewer


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """U V^T, nearly, of the singular value decomposition U S V^T of each matrix: its directions, all equally long.

    matrices: (n, rows, columns)
    steps:    of the Newton-Schulz iteration; after five, singular values lie between about 0.7 and 1.2
    source    Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks"
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices if matrices.dtype == torch.float64 else matrices.float()
    x = x.mT if tall else x  # the products below are of the shorter side
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def matrices_inside(net: nn.Module) -> list[nn.Parameter]:
    """The weights of linear layers and convolutions, but for embeddings and the layers that see images or t itself.

    Those that see t are told by their names, which begin with "time" here and in other libraries.
    """
    named = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    inside = [m.weight for name, m in named if not name.startswith("time")]
    weights = dict.fromkeys(w for w in inside if w.requires_grad)  # a shared one counts once
    return [w for w in weights if min(w.shape[:2]) >= SMALLEST]


class Muon(torch.optim.Optimizer):
    """Muon's update for the matrices inside `net`, AdamW's for its other weights.

    AdamW moves every weight about as far as every other. A matrix's gradient has few large directions, and so has
    such a step. Muon makes a step that is equally long in all of the matrix's directions.

    net: its parameters that ask for gradients are moved
    lr:  AdamW's learning rate. Muon's is five times that, as its steps are measured otherwise
    weight_decay: of the rate of each, by which it makes its weights smaller
    source: as for `orthogonalise`
    """

    _step_supports_amp_scaling = True  # a GradScaler hands over its verdict, on the device, instead of reading it

    def __init__(self, net: nn.Module, lr: float = 4e-3, weight_decay: float = 0.01):
        matrices = matrices_inside(net)
        ids = {id(w) for w in matrices}
        others = [p for p in net.parameters() if p.requires_grad and id(p) not in ids]
        # beta_2 = 0.99: a training of minutes gains from second moments that forget the first, wild steps soon
        others = dict(params=others, weight_decay=weight_decay)
        self.adamw = torch.optim.AdamW([others], lr=lr, betas=(0.9, 0.99), fused=True)
        super().__init__([*self.adamw.param_groups, dict(params=matrices)], dict(lr=lr, weight_decay=weight_decay))
        self._share()

    def _share(self) -> None:
        """AdamW works on this optimizer's own first group and state: there is one state, to save and to load."""
        self.adamw.param_groups, self.adamw.state = self.param_groups[:1], self.state

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; after a closure, where one is given, that computes the loss and its gradients and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.adamw.grad_scale = getattr(self, "grad_scale", None)  # these two are a GradScaler's
        self.adamw.found_inf = getattr(self, "found_inf", None)
        self.adamw.step()
        self._move_matrices(self.adamw.grad_scale, self.adamw.found_inf)
        return loss

    def _move_matrices(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        group = self.param_groups[1]
        weights = [w for w in group["params"] if w.grad is not None]
        gradients, lr = [w.grad for w in weights], 5 * group["lr"]
        for w in weights:
            if "momentum" not in self.state[w]:
                self.state[w]["momentum"] = torch.zeros_like(w)
        momenta = [self.state[w]["momentum"] for w in weights]
        if grad_scale is not None:
            gradients = [g / grad_scale for g in gradients]
        if found_inf is not None:  # a step that changes nothing: the host need not know
            gradients = [torch.where(found_inf > 0, m, g) for m, g in zip(momenta, gradients, strict=True)]
            lr = lr * (1 - found_inf)

        by_shape = defaultdict(list)  # matrices of one shape are orthogonalised together
        for w, momentum, gradient in zip(weights, momenta, gradients, strict=True):
            momentum.lerp_(gradient, 1 - MOMENTUM)
            ahead = gradient.lerp(momentum, MOMENTUM)  # Nesterov's: where the momentum will be
            by_shape[w.flatten(1).shape].append((w, ahead.flatten(1)))
        for (rows, columns), pairs in by_shape.items():
            steps = orthogonalise(torch.stack([ahead for _, ahead in pairs]))
            size = max(1, rows / columns) ** 0.5
            for (w, _), step in zip(pairs, steps, strict=True):
                w.mul_(1 - lr * group["weight_decay"])
                w.sub_(lr * size * step.view_as(w))
