"""The exercises of lesson 11: scores, steps of differential equations, a divergence, flows, a field of one's own.

What goes wrong in them is in lesson11.mistakes; the fixed inputs are in cases11. Of 11.3 there is no one right answer:
`aim` says what makes one right.
"""

import torch

from .cases11 import (
    FIELD,
    difference_cases,
    drift_cases,
    field_cases,
    flow_cases,
    langevin_cases,
    map_cases,
    noise_cases,
    reverse_cases,
)
from .written import exercise


@exercise(
    "11.1",
    noise_cases,
    first="look at 'Where the noise comes in'. What is the score of one Gaussian, and where in it is the noise?",
    linear=("noise",),
)
def score_from_noise(schedule, t, noise):
    """The score of x_t, the gradient of log p(x_t), from the expected noise in x_t.

    schedule:  schedule.q_coefficients(t, noise) are the two roots of the closed form, for
               the signal and for the noise, shaped to multiply noise
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     (B, ...) the expectation of the noise in x_t, or a network's estimate of it
    returns    (B, ...)
    """
    signal, sigma = schedule.q_coefficients(t, noise)
    return -noise / sigma


@exercise(
    "11.2",
    langevin_cases,
    first="let score return 0 everywhere. What is left of the step, and what is its variance?",
    linear=("z",),
)
def langevin_step(score, x, step, z):
    """One step of Langevin dynamics.

    score:   score(x) is the gradient of the log-density at x, (B, ...)
    x:       (B, ...) where the walkers are
    step:    a number above 0, the size of the step
    z:       same shape as x, standard normal
    returns  (B, ...) where they are afterwards
    """
    drift = step * score(x)
    noise = (2 * step) ** 0.5 * z
    return x + drift + noise


@exercise(
    "11.3",
    field_cases,
    first="begin with one peak at the origin: all arrows point at it, the longer the farther away. Then add a second.",
    tolerance=1e-6,
    aim=FIELD,
)
def my_score(x):
    """The score of a density of your own in the plane.

    x:       (B, 2) float64 points
    returns  (B, 2) float64: the gradient of a log-density at each of them
    """
    peaks = torch.tensor([[-1.2, -0.8], [1.2, -0.8], [0.0, 1.2]], dtype=torch.float64)
    std = 0.3
    away = peaks - x[:, None]  # (B, K, 2), from each point to each peak
    closeness = -away.square().sum(2) / (2 * std**2)
    share = closeness.softmax(1)  # (B, K)
    mean = (share[:, :, None] * away).sum(1)
    return mean / std**2


@exercise(
    "11.4",
    reverse_cases,
    first="look at the three terms of the reverse equation. Which signs change if you go by dt from u to u - dt?",
    linear=("x", "score", "z"),
)
def reverse_sde_step(x, score, beta, dt, z):
    """One step of Euler and Maruyama, from time u back to u - dt, for the reverse equation.

    x:       (B, ...) the state at time u
    score:   (B, ...) the score of the density at time u, at x
    beta:    beta(u), the rate of the noise: a number, or a tensor shaped to multiply x
    dt:      a number above 0, by how much time goes *back*
    z:       same shape as x, standard normal
    returns  (B, ...) the state at time u - dt
    """
    shrink = -0.5 * beta * x  # what the forward equation does in a unit of time
    pull = beta * score
    drift = shrink - pull  # of the reverse equation, for a time that grows
    spread = (beta * dt) ** 0.5
    return x - drift * dt + spread * z


@exercise(
    "11.5",
    drift_cases,
    first="compare the two equations in 'The equation without noise': in which factor do their scores differ?",
    linear=("x", "score"),
)
def ode_drift(x, score, beta):
    """dx/du of the probability-flow equation, for a time u that grows from data to noise.

    x:       (B, ...) the state at time u
    score:   (B, ...) the score of the density at time u, at x
    beta:    beta(u), the rate of the noise: a number, or a tensor shaped to multiply x
    returns  (B, ...)
    """
    shrink = -0.5 * beta * x
    pull = -0.5 * beta * score
    return shrink + pull


@exercise(
    "11.6",
    map_cases,
    first="take f(x) = 2 x in three dimensions. Its divergence is 6: of which derivatives is that the sum?",
    any_float=True,
)
def divergence(f, x):
    """The divergence of a vector field at each item of a batch, exactly, by autograd.

    f:       f(x) has the shape of x, and each item of it depends on that item of x alone
    x:       (B, ...) points; D = x[0].numel() numbers each
    returns  (B,) the sum over i of df_i / dx_i, one number for each item, without a graph
    """
    x = x.detach().requires_grad_()
    y = f(x).reshape(len(x), -1)  # (B, D)
    total = x.new_zeros(len(x))
    for i in range(y.shape[1]):
        out = y[:, i].sum()  # over the batch, whose items do not mix
        (slopes,) = torch.autograd.grad(out, x, retain_graph=True)
        total = total + slopes.reshape(len(x), -1)[:, i]
    return total


@exercise(
    "11.7",
    difference_cases,
    first="v and x_t are two equations for x_0 and the noise. Solve them, as in lesson 05, and then subtract.",
    linear=("xt", "v"),
)
def velocity_from_v(schedule, xt, t, v):
    """The velocity of the straight path, noise - x0, from v = signal * noise - sigma * x0.

    schedule:  schedule.q_coefficients(t, xt) are signal and sigma, the two roots of the closed
               form xt = signal * x0 + sigma * noise, shaped to multiply xt
    xt:        (B, ...) data at noise level t
    t:         (B,) integers in 1...T, or one int for the whole batch
    v:         same shape, a network's estimate of v
    returns    (B, ...)
    """
    signal, sigma = schedule.q_coefficients(t, xt)
    x0 = signal * xt - sigma * v
    noise = sigma * xt + signal * v
    return noise - x0


@exercise(
    "11.8",
    flow_cases,
    first="draw a straight line from a point x0 to a noise. Where on it are you at u = 1/4, and how fast do you move?",
    flows=("net",),
)
def flow_matching_loss(net, x0, noise, u):
    """The loss that trains the velocity of a flow. Data is at u = 0, noise at u = 1.

    net:     net(x, u) with u (B,): the estimate of the velocity dx/du at x, (B, ...)
    x0:      (B, ...) data
    noise:   same shape, standard normal: where the straight line from x0 ends
    u:       (B,) times between 0 and 1, each item's own
    returns  the mean square of what the estimate is off, over everything
    """
    share = u.reshape((-1,) + (1,) * (x0.ndim - 1))  # (B, 1, ..., 1)
    xu = (1 - share) * x0 + share * noise
    velocity = noise - x0
    error = net(xu, u) - velocity
    return error.square().mean()
