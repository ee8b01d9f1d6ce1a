"""Which t a training draws, by what the losses were: eq. 18 of Nichol and Dhariwal (2021) (lesson 12)."""

import torch
from torch import Tensor

from ..bound import strata_of
from .devices import Team

HISTORY = 10  # squared losses that a bin remembers
BINS = 50  # of neighbouring t: ten losses for each of 1,000 t would take well over 10,000 draws
UNIFORM = 0.001  # the least share of t that is drawn uniformly: no bin is forgotten, and no weight is above 1,000


class ImportanceSampler:
    """Draws t more often where losses are large, with weights that make up for it.

    The mean of weight times anything is its mean over uniform t, whatever the probabilities are. Its variance is least
    if t has a probability in proportion to sqrt(E[L_t^2]), the root of the mean squared loss there. That is estimated
    from the last ten times that t's bin was drawn (each the mean of the squares, where one batch draws it repeatedly).
    Bins are narrow where t is small, and drawn equally often until all of them have ten.

    T:       t runs over 1…T
    uniform: the share of t that is drawn uniformly all the same, in [0, 1]; at least `UNIFORM`
    dtype:   of losses and weights
    """

    def __init__(self, T: int, uniform: float, device: torch.device | str, dtype: torch.dtype = torch.float32):
        first, end = torch.tensor(strata_of(T, min(BINS, T))).T  # (bins,) each
        width, bins = end - first, torch.arange(len(first))
        self.first, self.width, self.bins = (x.to(device) for x in (first, width, bins))
        self.bin = bins.repeat_interleave(width).to(device)  # (T,) of t = 1, 2, …
        self.share = (width.to(dtype) / T).to(device)  # of each bin, if t were uniform
        self.uniform = max(uniform, UNIFORM)
        self.squares = torch.zeros(len(bins), HISTORY, dtype=dtype, device=device)
        self.times = torch.zeros(len(bins), dtype=torch.int64, device=device)  # that each bin was drawn

    def probabilities(self) -> Tensor:
        """(bins,) the probability of each bin; of each t in it, as many times less as the bin is wide."""
        wanted = self.share * self.squares.mean(1).sqrt().clamp(min=1e-12)  # not all 0
        mixed = (1 - self.uniform) * wanted / wanted.sum() + self.uniform * self.share
        return torch.where((self.times >= HISTORY).all(), mixed, 1 / len(mixed))

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(n,) integers t in 1…T, and the (n,) weights of their losses. Nothing here makes the host wait."""
        p = self.probabilities()
        options = dict(dtype=p.dtype, device=p.device, generator=generator)
        bins = torch.searchsorted(p.cumsum(0), torch.rand(n, **options)).clamp(max=len(p) - 1)
        width = self.width[bins]
        inside = torch.minimum((torch.rand(n, **options) * width).long(), width - 1)  # a product may be rounded up
        return self.first[bins] + inside, self.share[bins] / p[bins]

    def update(self, t: Tensor, losses: Tensor, team: Team) -> None:
        """Remember the losses, before weights, at these t: (n,) each, of this process's share of the batch."""
        drawn = (self.bin[t - 1][:, None] == self.bins).to(losses)  # (n, bins)
        squares, count = team.mean(torch.stack([(drawn * losses[:, None] ** 2).sum(0), drawn.sum(0)]))
        squares = squares / count  # the same in all processes
        new = squares.isfinite()  # drawn, and without an overflow of float16
        later = torch.cat([self.squares[:, 1:], squares[:, None]], 1)
        self.squares = torch.where(new[:, None], later, self.squares)
        self.times = self.times + new

    def state_dict(self) -> dict:
        return dict(squares=self.squares, times=self.times)

    def load_state_dict(self, state: dict) -> None:
        self.squares, self.times = state["squares"].to(self.squares), state["times"].to(self.times)
