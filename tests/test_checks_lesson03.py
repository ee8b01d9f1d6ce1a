"""Lesson 03: what is measured about a schedule of one's own. The answers that are typed are in answers/lesson03.answers."""

import torch
from typed import judge

from ddpm_course.exercises import lesson03

DESIGN = "torch.cat([torch.ones(1), torch.linspace({}, {}, T, dtype=torch.float64).sigmoid()])"


def test_a_design_is_told_both_of_its_scores():
    solved = judge("my_alpha_bars", DESIGN.format(9.5, -9.5))
    assert "L_T is 5.4e-05" in solved.text[1] and "D is 0.025" in solved.text[1]
    uneven = judge("my_alpha_bars", DESIGN.format(9, -30))
    assert any("the unevenness D" in line for line in uneven.text)


def test_unevenness_is_the_largest_gap_between_shares():
    """Against a brute-force search over a fine grid of log-SNR."""
    for values in ([9.0, 3.0, -1.0, -9.5], [30.0, 2.0, 1.9, 1.8, -40.0], [12.0, 11.0], [-3.0]):
        log_snr = torch.tensor(values, dtype=torch.float64)
        table = torch.cat([torch.ones(1), log_snr.sigmoid()])
        grid = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
        share = (log_snr[:, None] <= grid).double().mean(0)
        gap = (share - (grid + 10) / 20).abs().max()
        assert abs(lesson03.unevenness(table) - gap) < 2e-4, values
