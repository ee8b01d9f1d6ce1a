"""Lesson 06: what is not said of a generator. The answers that are typed are in answers/lesson06.answers."""

import pytest
from typed import judge

LOOP = """\
x = x_T
with torch.no_grad():
    for t, s in pairwise(times):
        eps = net(x, torch.full((len(x),), t))
        x0 = estimate_x0(schedule, x, t, eps)
        z = torch.randn(x.shape, generator=generator) if s else torch.zeros(x.shape)
        x = posterior_step(schedule, x0, x, t, s, z, kind)
return x"""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (", t))", ", t)) * 0.9"),
        ("schedule, x, t, eps", "schedule, x, max(s, 1), eps"),
        ("torch.full((len(x),), t)", "t"),
    ],
)
def test_who_draws_from_the_generator_is_not_accused_of_not_doing_so(right, wrong):
    """Where the only step is the last one, the right answer draws nothing either; nor does who fails before drawing."""
    assert judge("ancestral_loop", LOOP).solved and LOOP.count(right) == 1
    verdict = judge("ancestral_loop", LOOP.replace(right, wrong))
    assert verdict.status == "wrong" and "never draws" not in " ".join(verdict.text), verdict
