"""What the pictures are made of."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from ddpm_course import plots


@pytest.mark.parametrize("n, columns", [(1, 1), (7, 3), (8, 4), (3, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_are_laid_out_as_torchvision_lays_them_out(n, columns, channels):
    images = torch.randint(0, 256, (n, channels, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    if n > 1:  # of a single image torchvision makes no grid
        expected = make_grid(images, nrow=columns, padding=2, pad_value=250).permute(1, 2, 0).numpy()
        assert np.array_equal(plots.tile(images, columns), expected)
    else:
        assert plots.tile(images, columns).shape == (9, 8, 3)


def test_floats_are_shown_as_the_pixels_they_stand_for():
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 7.0]).reshape(1, 1, 1, 5)
    assert plots.as_pixels(x).flatten().tolist() == [0, 0, 128, 255, 255]


LEVELS = torch.arange(16).reshape(2, 1, 2, 4) * 17


def test_bytes_of_any_type_are_shown_and_what_is_no_picture_is_named():
    for same in (LEVELS, LEVELS.numpy(), LEVELS.numpy().astype(">u2"), LEVELS.tolist(), LEVELS / 127.5 - 1):
        assert torch.equal(plots.as_pixels(same), LEVELS.to(torch.uint8))
        assert np.array_equal(drawn_in(plots.show_images(same)), drawn_in(plots.show_images(LEVELS)))
    for show in (plots.show_images, lambda x: plots.show_rows([x], ["a"]), lambda x: plots.animate([x])):
        for wrong, complaint in (
            (LEVELS.float(), "got torch.float32 from 0 to 255"),
            (LEVELS - 1, "got torch.int64 from -1 to 254"),
            (LEVELS > 9, "got torch.bool"),
            (LEVELS[:, 0], r"must have shape .* got \(2, 2, 4\)"),
            (LEVELS.reshape(2, 2, 2, 2), r"must have shape .* got \(2, 2, 2, 2\)"),
            (LEVELS[:0], r"must have shape .* got \(0, 1, 2, 4\)"),
        ):
            with pytest.raises(ValueError, match=f"images .*{complaint}"):
                show(wrong)
    for columns in (0, 2.5, None):
        with pytest.raises(ValueError, match="columns must be a whole number"):
            plots.show_images(LEVELS, columns=columns)


def drawn_in(figure):
    return figure.axes[0].images[0].get_array()


def test_an_animation_is_a_gif_with_every_frame(tmp_path):
    frames = [torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(5)]
    shown = plots.animate(frames, columns=2, zoom=4, path=tmp_path / "film.gif", alt='noise & "boots"')
    film = Image.open(tmp_path / "film.gif")
    assert film.n_frames == 5 and film.size == (18, 10)
    assert 'alt="noise &amp; &quot;boots&quot;"' in shown._repr_html_() and 'width="72"' in shown._repr_html_()


def test_a_matplotlibrc_changes_no_figure():
    """LaTeX, say, which is not on this machine; ticks and their labels are made when a figure is written."""

    def drawn():
        with plots.style():
            figure, ax = plt.subplots()
            ax.plot([0, 1e6], label="$x_0$")
            ax.legend()
        return plots.base.in_colors(plots.finish(figure), 128).data, plots.base.as_jpeg(figure).data

    before = drawn()
    with plt.rc_context({"text.usetex": True, "lines.linewidth": 9, "savefig.facecolor": "k", "axes.titlesize": 3}):
        assert drawn() == before
