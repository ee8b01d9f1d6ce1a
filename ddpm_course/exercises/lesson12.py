"""The exercises of lesson 12: variances, the hybrid loss, a sampler of t to repair, weights and a schedule.

What goes wrong in them is in lesson12.mistakes; the fixed inputs are in cases12. `variances`, `losses`, `weighting`,
`schedules` and `training.importance` do the same. Of 12.6 there is no one right answer: `trade12` judges.
"""

import torch

from .cases12 import best_cases, hybrid_cases, importance_cases, log_cases, min_snr_cases, rescaling_cases
from .trade12 import TRADE, trade_cases
from .written import exercise


@exercise(
    "12.1",
    best_cases,
    first="let the error be 0. Which variance of lesson 06 has to come out? Then look at what an error adds to it.",
    linear=("error",),
    tolerance=1e-6,
)
def best_variance(alpha_bar_t, alpha_bar_s, error):
    """The variance of steps from t to s with which the bound is smallest.

    alpha_bar_t, alpha_bar_s:  (K,) float64, entries of the table alpha_bar at t and at s, for K
                               steps at once: 0 < alpha_bar_t < alpha_bar_s <= 1
    error:    (K,) the mean squared error of the estimate of x_0 at t
    returns   (K,) float64
    """
    alpha = alpha_bar_t / alpha_bar_s  # the share that survives from s to t
    beta = 1 - alpha
    small = beta * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    on_x0 = alpha_bar_s.sqrt() * beta / (1 - alpha_bar_t)
    return small + on_x0**2 * error


@exercise(
    "12.2",
    log_cases,
    first="let v be -1, and then 1, everywhere. Which two logarithms have to come out?",
    linear=("v",),
)
def learned_log_variance(schedule, v, t, s):
    """The logarithm of the variance that a network gives every pixel of a step from t to s.

    schedule:  schedule.alpha_bar is the table, (T+1,) float64
    v:         (B, ...) float32, the second half of the network's output: -1 means beta-tilde
               and 1 means beta of this step, between them in logarithms, and beyond them too.
               Where s is 0, beta-tilde of the step from 2 to 1 takes beta-tilde's place
    t, s:      one int each for the whole batch, or (B,) integers each, 0 <= s < t; t - s may be
               more than 1
    returns    (B, ...) float32
    """
    column = (-1,) + (1,) * (v.ndim - 1)  # (B, 1, ..., 1)
    ab = schedule.alpha_bar
    ab_t = ab[t]
    ab_s = ab[s]
    beta = 1 - ab_t / ab_s
    small = beta * (1 - ab_s) / (1 - ab_t)
    second = (1 - ab[2] / ab[1]) * (1 - ab[1]) / (1 - ab[2])
    small = torch.where(torch.as_tensor(s) > 0, small, second)  # where s is 0 it is 0
    low = small.log()
    high = beta.log()
    low, high = (w.to(v.dtype).to(v.device).reshape(column) for w in (low, high))
    share = (v + 1) / 2
    return share * high + (1 - share) * low


@exercise(
    "12.3",
    hybrid_cases,
    first="write the mean squared error of the first half for each item. Then decide which half the term may train.",
    tolerance=1e-5,
)
def hybrid_loss(term, output, target, T):
    """L_simple + 0.001 L_vlb, one number for each item (Nichol and Dhariwal, 2021, eq. 16).

    term:     term(estimate, v) is one term of the bound for each item, at its own t, from the
              two halves of an output: (B,) in bits per dimension
    output:   (B, 2C, ...) what the network says: C channels of estimate, then C of v
    target:   (B, C, ...) what the estimate should be
    T:        L_vlb is a sum of T terms, of which each item has drawn one, all t being as likely
    returns   (B,) the mean squared error of the estimate and the share of the bound, added up.
              The share trains v alone: no gradient of it reaches the estimate
    """
    estimate, v = output.chunk(2, 1)
    squares = (estimate - target) ** 2
    simple = squares.flatten(1).mean(1)
    bits = term(estimate.detach(), v)
    share = 0.001 * T * bits  # one term stands for T of them
    return simple + share


@exercise(
    "12.4",
    importance_cases,
    first="copy broken_t_probabilities into this cell. Let all squares be 1 and read it: all t should be as likely.",
    tolerance=1e-5,
    any_float=True,
)
def repaired_t_probabilities(squares, times, widths, uniform):
    """broken_t_probabilities without its five faults: how likely each t is, and its weight.

    squares:   (bins, H) float64, the last H squared losses of each bin of neighbouring t
    times:     (bins,) how often each bin was drawn. Until all have been drawn H times, every
               *bin* is as likely as any other
    widths:    (bins,) integers, how many t each bin has; together they are t = 1...T. All t of
               a bin are as likely
    uniform:   the share of draws for which all *t* are as likely; in the others the probability
               of t is in proportion to the root of the mean squared loss in its bin
    returns    p, weights: (T,) each, for t = 1...T. p adds up to 1, and the mean over draws of
               weight times loss is the plain mean of the loss over all t
    """
    bins, T = len(widths), int(widths.sum())
    share = widths / T  # of each bin, if all t were as likely
    roots = squares.mean(1).sqrt()  # was the mean of the roots
    wanted = share * roots  # was the root alone, however wide the bin is
    of_bin = wanted / wanted.sum()
    of_bin = (1 - uniform) * of_bin + uniform * share  # was the same for every bin
    if not (times >= squares.shape[1]).all():  # was any
        of_bin = torch.full_like(of_bin, 1 / bins)
    p = (of_bin / widths).repeat_interleave(widths)
    return p, 1 / (T * p)  # was without T


@exercise(
    "12.5",
    min_snr_cases,
    first="begin with x0, where nothing has to be converted. Then look at the table in 'What a loss weighs'.",
    tolerance=1e-6,
)
def min_snr(snr, predicts, gamma=5.0):
    """What Min-SNR-gamma multiplies the squared error of a network's output with.

    It gives the squared error of x_0 the weight min(SNR, gamma) (Hang et al., 2023).
    snr:       (K,) float64, the signal-to-noise ratio at K times, more than 0 or, for "v" and
               "x0", 0 as well
    predicts:  what the output means, "noise", "x0" or "v"
    gamma:     a number above 0
    returns    (K,) float64
    """
    on_x0 = snr.clamp(max=gamma)
    if predicts == "noise":
        return on_x0 / snr
    if predicts == "v":
        return on_x0 / (snr + 1)
    return on_x0


@exercise(
    "12.6",
    trade_cases,
    first="return torch.ones(T + 1, dtype=torch.float64), and read what the check says of it.",
    tolerance=1e-6,
    aim=TRADE,
    free=("T",),
)
def my_weighting(make_schedule, T):
    """How much the squared error of v counts at each t, for a schedule of any length.

    make_schedule:  cosine_schedule: make_schedule(T) has the tables alpha_bar and snr, (T+1,)
                    float64 each
    T:              number of steps
    returns         (T+1,) float64, none below 0; entry 0 is not used, but has to be finite too
    """
    snr = make_schedule(T).snr[1:]
    bound = (snr[:-1] - snr[1:]) / (snr[1:] + 1)  # what the bound weighs, from t = 2 on
    bound = torch.cat([bound[:1], bound])
    plain = torch.ones_like(bound)
    mix = 0.6 * bound / bound.sum() + 0.4 * plain / plain.sum()
    return torch.cat([mix.new_zeros(1), mix])


@exercise(
    "12.7",
    rescaling_cases,
    first="draw the root of alpha_bar against t. Where does its last point have to go, and which point stays?",
    tolerance=1e-6,
)
def zero_terminal_snr(alpha_bar):
    """alpha_bar, rescaled so that nothing of x_0 is left at T (Lin et al., 2024, algorithm 1).

    alpha_bar:  (T+1,) float64, falling from alpha_bar_0 = 1; T is 2 or more
    returns     (T+1,) float64: its root is shifted to 0 at T, and stretched to be what it was
                at t = 1. Entry 0 stays 1
    """
    root = alpha_bar.sqrt()
    first = root[1]
    last = root[-1]
    shifted = root - last
    stretched = shifted * first / (first - last)
    new = stretched**2
    new[0] = 1
    return new
