"""Probes of how well a network does its work: its error, its weights, a short sampling (lesson 13)."""

from .conditions import ALONE, ANSWER, DROPOUT, EMBEDDING, NULL, ONE_OFF, RIGHT_Y, SMOOTH, TARGET, TOLD, USE_T, USE_Y
from .conditions import PROBES as OF_CONDITIONS
from .findings import Probe, UnjudgedError
from .inputs import END, FIRST, ORDER, RANGE, TABLES
from .patient import Patient, linear_error

AVERAGE, ERROR, SAMPLING = "averaged weights", "error by t", "a short sampling"


def averaged(patient: Patient) -> tuple[str, str | None]:
    if patient.raw is None:
        raise UnjudgedError("no network with the weights before averaging was given (raw=)")
    ours = theirs = 0.0
    for t in patient.times:
        ours += patient.error(t, patient.answer(t))
        theirs += patient.error(t, patient.ask(patient.noised(t), t, patient.y, raw=True))
    value = f"the averaged network's error is {ours / theirs:.0%} of the raw one's"
    if ours > 1.15 * theirs:
        return value, (
            "The average still holds much of the random weights it began with: its memory, 1 / (1 - decay) steps, is "
            "longer than the training. Let the decay grow as (1 + n) / (10 + n), or average before no step."
        )
    return value, None


def error_by_t(patient: Patient) -> tuple[str, str | None]:
    variances, worst = patient.power(), (0.0, 0, 0.0, 0.0)
    for t in patient.times:
        found = patient.error(t, patient.answer(t))
        linear = linear_error(variances, float(patient.schedule.alpha_bar[t]))
        worst = max(worst, (found / (1.15 * linear + 0.03), t, found, linear))
    excess, t, found, linear = worst
    value = f"nearest to or furthest above a linear filter at t = {t}: it misses {found:.2g}, the filter {linear:.2g}"
    if excess > 1:
        flat = all(float(patient.answer(t).square().mean()) < 0.05 for t in patient.times)
        return value, (
            "The network says almost nothing: the noise in the loss is not the one in x_t, the learning rate is 0 or "
            "far too small, or gradients never reach it."
            if flat
            else "A matrix product would do better, so the network has not learnt this task: too few steps or a wrong "
            "learning rate, a loss whose noise, t or target differs from what it saw, random weights, or other data."
        )
    return value, None


def sampling(patient: Patient) -> tuple[str, str | None]:
    steps = patient.sampling()
    last, n = steps[-1].x.float().cpu(), len(steps[-1].x)
    data = patient.images.float()
    if not bool(last.isfinite().all()):
        return "x becomes NaN or infinite", "The network's answers explode along the way: look at its error by t."
    spread = float(last.std() / data.std())
    means = data.flatten(1).mean(1)
    shift = float(last.mean() - data.mean()) / float(data.std())
    trail = ", ".join(f"{float(s.x0.mean()):+.2f} ± {float(s.x0.std()):.2f}" for s in steps[:: max(1, len(steps) // 4)])
    value = f"estimates of x_0 are {trail}; the data {float(data.mean()):+.2f} ± {float(data.std()):.2f}"
    room = 0.3 + 4 * float(means.std() / data.std()) / n**0.5
    if abs(shift) > room or not 0.6 < spread < 1.5:
        return value, (
            "Every answer is a little wrong in the same direction, and sampling adds that up: an error at large t "
            "decides brightness and contrast. Were t near T ever drawn in training?"
        )
    if patient.pictures and data.shape[1] > 1:
        tint = (last.mean((0, 2, 3)) - last.mean()) - (data.mean((0, 2, 3)) - data.mean())
        if float(tint.abs().max() / data.std()) > 0.3:
            return f"{value}; a channel is {float(tint.abs().max()):.2f} off", (
                "All samples share a tint: channels are swapped or mixed, or large t has learnt too little."
            )
    return value, None


SOUND_NET = (RANGE, TABLES, ORDER, ANSWER, ALONE, USE_T, EMBEDDING, SMOOTH, TARGET, TOLD)
PROBES = (
    *OF_CONDITIONS,
    Probe(AVERAGE, "the error of averaged and of raw weights", "at most 115 % of the raw ones'",
          "lesson 07, 'The average of the weights'", averaged, SOUND_NET),
    Probe(ERROR, "the mean squared error of v by t, against Wiener's linear filter", "below the filter's",
          "lesson 05, 'Is my loss converged?'", error_by_t, (*SOUND_NET, ONE_OFF, USE_Y, RIGHT_Y, AVERAGE)),
    Probe(SAMPLING, "mean and spread of the estimates along 20 steps of DDIM", "mean and spread of the data",
          "lesson 06, 'What happens on the way'", sampling,
          (*SOUND_NET, FIRST, END, ONE_OFF, USE_Y, RIGHT_Y, AVERAGE, ERROR)),
)  # fmt: skip
NETWORK = (*SOUND_NET, DROPOUT, NULL, ERROR, AVERAGE)
