"""The exercises of lesson 10: a classifier's gradient, guided noise, scales, inpainting, a hole of one's own, editing.

What goes wrong in them is in lesson10.mistakes. `nets.Guided` and the functions of `guidance` do the same.
"""

import torch

from . import cases10
from .written import exercise

# ---- 10.1


@exercise(
    "10.1",
    cases10.gradient_cases,
    first="compute log p(y | x_t) of every image. Then look at how a score becomes a noise in 'Bayes' rule'.",
)
def classifier_noise(classifier, schedule, noise, xt, t, y, scale):
    """Classifier guidance: a noise estimate, corrected by the gradient of log p(y | x_t).

    classifier:  classifier(x, t) gives logits (B, K): one more step, and they are log p(y | x)
    schedule:    schedule.q_coefficients(t, xt) are sqrt(alpha_bar) and sqrt(1 - alpha_bar),
                 each shaped to multiply xt
    noise:       (B, ...) the network's estimate
    xt:          (B, ...) data at noise level t; samplers call this under torch.no_grad()
    t, y:        (B,) integers: time and class of each image
    scale:       a number
    returns      (B, ...) the corrected estimate, without a graph
    """
    with torch.enable_grad():
        x = xt.detach().requires_grad_()
        logits = classifier(x, t)
        log_p = logits.log_softmax(1)
        chosen = log_p[torch.arange(len(y)), y]  # (B,)
        total = chosen.sum()  # each image's gradient comes from its own term
        (gradient,) = torch.autograd.grad(total, x)
    signal, sigma = schedule.q_coefficients(t, xt)
    return noise - scale * sigma * gradient


# ---- 10.2


@exercise(
    "10.2",
    cases10.guided_cases,
    first="call net twice, with y and with the null class. Check scale 1 and scale 0: which of the two must come out?",
    tolerance=1e-4,
)
def guided_noise(net, xt, t, y, scale):
    """Classifier-free guidance: the estimate without labels, moved towards the one with them.

    net:      net(x, t, y) with (B,) labels y; label net.num_classes is the null class
    xt:       (B, ...) data at noise level t, float32
    t, y:     (B,) integers
    scale:    a number, or (B,) one for each image: 0 ignores y, 1 is plain conditional sampling
    returns   (B, ...) the guided estimate, in the dtype of xt
    """
    column = (-1,) + (1,) * (xt.ndim - 1)  # (B, 1, ..., 1)
    null = torch.full_like(y, net.num_classes)
    labels = torch.cat([y, null])
    both = net(torch.cat([xt, xt]), torch.cat([t, t]), labels)  # (2B, ...): one call
    with_label, without = both.chunk(2)
    scale = torch.as_tensor(scale, dtype=xt.dtype, device=xt.device)
    scale = scale.reshape(column)
    return without + scale * (with_label - without)


# ---- 10.3


@exercise(
    "10.3",
    cases10.conversion_cases,
    first="put c = 1 and u = 0 into a line of code, and it returns the weight of c. What are they for the four above?",
    any_float=True,
)
def convert_scale(value, source, target):
    """The scale that guides by the code `target` as `value` does by the code `source`.

    value:    a number
    source:   source(c, u, w): somebody's code for guidance with the scale w. It returns a
              weighted sum of c, the prediction with a label, and u, the one without. The two
              weights are straight lines in w, and they add up to 1
    target:   target(c, u, w): the same by somebody else
    returns   the w for target, a number
    """
    on_c = source(1.0, 0.0, value)  # the weight of c
    start = target(1.0, 0.0, 0.0)
    slope = target(1.0, 0.0, 1.0) - start
    return (on_c - start) / slope


# ---- 10.4


@exercise(
    "10.4",
    cases10.replacement_cases,
    first="x is at noise level s. What would the known pixels look like at that level?",
)
def replace_known(schedule, x, known, mask, s, z):
    """x_s with its known pixels put in the place of the sampler's.

    schedule:  schedule.q_coefficients(s, x) are sqrt(alpha_bar) and sqrt(1 - alpha_bar)
    x:         (B, ...) what the sampler has made, at noise level s
    known:     (B, ...) the clean picture; where the mask is 0 its numbers mean nothing
    mask:      1 where the picture is known, 0 where it is not, of a shape that broadcasts
    s:         (B,) integers in 0...T, or one int
    z:         (B, ...) standard normal
    returns    (B, ...) at noise level s, float32
    """
    signal, sigma = schedule.q_coefficients(s, x)
    noised = signal * known + sigma * z
    return mask * noised + (1 - mask) * x


# ---- 10.5


@exercise(
    "10.5",
    cases10.up_cases,
    first="from s to t the forward process is one Gaussian step. Which share of x_s survives it?",
    linear=("xs", "z"),
)
def back_up(schedule, xs, s, t, z):
    """x_t from x_s: the way back up to more noise, so that a step can be made again.

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    xs:        (B, ...) data at noise level s
    s, t:      one int each or (B,) integers each, with 0 <= s < t; t - s may be more than 1
    z:         (B, ...) standard normal
    returns    (B, ...) a draw from q(x_t | x_s), float32
    """
    column = (-1,) + (1,) * (xs.ndim - 1)  # (B, 1, ..., 1)
    ab_s = schedule.alpha_bar[s]
    ab_t = schedule.alpha_bar[t]
    keep = ab_t / ab_s  # the share that survives from s to t
    signal = keep.sqrt()
    sigma = (1 - keep).sqrt()
    signal, sigma = (w.to(xs.dtype).to(xs.device).reshape(column) for w in (signal, sigma))
    return signal * xs + sigma * z


# ---- 10.6


@exercise(
    "10.6",
    cases10.hole_cases,
    first="look at the trousers. Which few pixels would you change with a pencil to make another garment of them?",
    aim=cases10.HOLE,
    free=("budget",),
)
def my_hole(budget):
    """A hole in the trousers, and the garment that the network is asked to fill it for.

    budget:   how many of the 784 pixels the network makes up: exactly that many
    returns   mask, label: (28, 28) with 1 where the picture stays and 0 in the hole, and the
              class that is asked for, 0...9, not the trousers' own
    """
    row, column = torch.arange(784) // 28, torch.arange(784) % 28
    label = 3  # a dress: trousers whose gap is closed
    aside = (column - 13.5).abs()
    order = (1000 * aside - row).argsort(stable=True)  # the middle columns first, from below
    mask = torch.ones(784)
    mask[order[:budget]] = 0
    return mask.reshape(28, 28), label


# ---- 10.7


@exercise(
    "10.7",
    cases10.start_cases,
    first="strength 1 starts at T, strength 0 at 0. Then it is lesson 02: which x_t does the drawing have there?",
)
def edit_start(schedule, drawing, strength, noise):
    """Where editing by SDEdit begins: a time, and the drawing noised to it.

    schedule:  T steps; schedule.q_coefficients(t, drawing) are the two roots of the closed form
    drawing:   (B, ...) in the data's range, float32
    strength:  from 0 (hand the drawing back) to 1 (forget it), as a share of T
    noise:     (B, ...) standard normal
    returns    t, x: the whole number nearest to that share of T, and (B, ...) x_t
    """
    t = round(strength * schedule.T)
    signal, sigma = schedule.q_coefficients(t, drawing)
    x = signal * drawing + sigma * noise
    return t, x
