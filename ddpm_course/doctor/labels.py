"""Probes of what a network does with labels (lesson 13)."""

import math

from .findings import UnjudgedError, Verdict, probe
from .patient import Patient, apart


@probe(
    "use of labels",
    measures="right labels against others, where there is much noise",
    sound="different answers",
    lesson="lesson 10, 'The null class'",
)
def use_of_labels(patient: Patient) -> Verdict:
    patient.need("labels")
    times = patient.times[-2:]
    patient.must_speak(times[0])
    change = max(apart(patient.answer(t), patient.answer(t, labels="others")) for t in times)
    value = f"with other labels the answer changes by {change:.1%}"
    if change < 0.005:
        return value, "The network ignores y: its code is never added, or labels were always dropped in training."
    return value, None


@probe(
    "right labels",
    measures="the error with right and with wrong labels",
    sound="less with the right ones",
    lesson="lesson 10, 'The null class'",
)
def right_labels(patient: Patient) -> Verdict:
    patient.need("labels")
    times = patient.times[-3:]
    right, others, none = (patient.errors(times, labels) for labels in ("given", "others", "none"))
    value = f"with wrong labels the error is {others / right:.0%} of that with the right ones"
    filtered = sum(map(patient.linear, patient.times))
    learnt = patient.errors(patient.times) < filtered  # before that, labels may not be worth anything yet
    if others < (1.01 if learnt else 1) * right or none < 0.9 * right:
        return value, (
            "The labels don't belong to the images: shuffled apart, sorted differently, or counted from 1 in one place."
        )
    return value, None


@probe(
    "no label",
    measures="the error without labels",
    sound="below that of a linear filter",
    lesson="lesson 10, 'The null class'",
)
def no_label(patient: Patient) -> Verdict:
    patient.need("labels")
    times = patient.times[-3:]
    right, none = (patient.errors(times, labels) for labels in ("given", "none"))
    if none == math.inf:
        raise UnjudgedError("the network cannot be called without labels")
    value = f"without labels the error is {none / right:.0%} of that with them"
    allowed = sum(1.15 * patient.linear(t) + 0.03 for t in times)  # labels may well be worth much
    if none > allowed and none > 1.3 * right:
        return value, (
            "The null class was never trained (labels were never dropped, or for the wrong items), so guidance would "
            "push away from noise. Drop 10 % of the labels in training."
        )
    return value, None
