"""Finds what the wrong results of a function have in common, in the words of the cases' facts: "where t = 1".

A phrase that merely covers what is wrong is no cause, as it may just go along: it must also be true of next to nothing
that is right. A wrong formula may be right here and there by luck, though. So what the facts do not tell apart counts
as one group, which is wrong if an element of it is; and one in LUCK of the groups may be right.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import torch

from ..exercises.records import Case
from .comparing import STRUCTURAL, Comparison

LUCK = 5
POSITIONS = ("at ", "from ", "between ", "in ")  # begin a phrase about places in the result


@dataclass
class Group:
    """Elements of a case of which the same phrases are true, or a whole case."""

    true: set[str]
    wrong: bool
    size: int


def cause(cases: Iterable[Case], comparisons: Iterable[Comparison]) -> str | None:
    """The phrase for what is wrong, or two where no one will do and only one pair does; None without such a phrase."""
    pairs = list(zip(cases, comparisons, strict=True))
    wholes, parts = [_whole(*pair) for pair in pairs], [list(_parts(*pair)) for pair in pairs]
    every = list(dict.fromkeys(phrase for case, _ in pairs for phrase in case.facts))
    dividing = {phrase for case, _ in pairs for phrase, true in case.facts.items() if torch.as_tensor(true).numel() > 1}
    without_values = any(comparison.problem in STRUCTURAL for _, comparison in pairs)
    inside = [part for whole, some in zip(wholes, parts, strict=True) if whole.wrong for part in some]
    if all(part.wrong for some in parts for part in some):
        return None

    def covers(phrases: tuple[str, ...], groups: list[Group]) -> bool:
        return all(group.true.issuperset(phrases) for group in groups if group.wrong)

    def is_small(phrase: str) -> bool:
        return sum(part.size for part in inside if phrase in part.true) < sum(part.size for part in inside) / 2

    within = any(covers((phrase,), inside) and is_small(phrase) for phrase in dividing)

    def right(*phrases: str) -> float:
        """The share of groups, among those of which the phrases are true, that are right; 1 if they are no cause."""
        divide = dividing.intersection(phrases)
        groups = [part for some in parts for part in some] if divide else wholes
        if not covers(phrases, groups) or (within and not divide):
            return 1
        several = divide and len(phrases) > 1
        if without_values and (several or any(p.startswith(POSITIONS) for p in phrases)):  # no place has a value
            return 1
        meant = [group for group in groups if group.true.issuperset(phrases)]
        return sum(not group.wrong for group in meant) / len(meant)

    best = min(every, key=right, default=None)
    if best and right(best) <= 1 / LUCK:
        return best
    both = [pair for pair in combinations(every, 2) if right(*pair) == 0]
    return ", ".join(both[0]) if len(both) == 1 else None


def only_right(cases: Iterable[Case], comparisons: Iterable[Comparison]) -> str | None:
    """A phrase that is true of all that is right and of nothing that is wrong."""
    pairs = list(zip(cases, comparisons, strict=True))
    groups = [part for pair in pairs for part in _parts(*pair)]
    every = dict.fromkeys(phrase for case, _ in pairs for phrase in case.facts)
    exact = [phrase for phrase in every if all((phrase in group.true) != group.wrong for group in groups)]
    return exact[0] if len(exact) == 1 and not all(group.wrong for group in groups) else None


def _whole(case: Case, comparison: Comparison) -> Group:
    """The case: the phrases that are true of all of it."""
    true = {phrase for phrase, value in case.facts.items() if torch.as_tensor(value).all()}
    return Group(true, bool(comparison.wrong.any()), comparison.wrong.numel())


def _parts(case: Case, comparison: Comparison) -> Iterator[Group]:
    """Its elements; together where there are no values, and one element may be to blame for that."""
    wrong = comparison.wrong.flatten()
    masks = [torch.as_tensor(value).expand(comparison.wrong.shape).flatten() for value in case.facts.values()]
    if comparison.problem in STRUCTURAL:
        masks, wrong = [mask.any().reshape(1) for mask in masks], wrong[:1]
    kinds, group = torch.stack([*masks, torch.ones_like(wrong)], dim=1).unique(dim=0, return_inverse=True)
    for i, kind in enumerate(kinds.tolist()):
        true = {phrase for phrase, value in zip(case.facts, kind, strict=False) if value}
        yield Group(true, bool(wrong[group == i].any()), int((group == i).sum()))
