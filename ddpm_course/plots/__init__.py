"""Pictures for the lessons: grids of images, distributions, paths, animations, live training.

Every function returns the figure it draws, on a light card that is legible on light and dark pages alike.
Colours are Okabe and Ito's, which colour-blind readers can tell apart. What several lessons draw is in base, images,
curves and live; what one lesson draws is in a module of its name.
"""

# ruff: noqa: F401 - imported for the lessons, which call them all by this name
from .base import COLORS, STYLE, as_jpeg, finish, in_few_greys, show_guess, style
from .curves import density_panels, histograms, lines, scatters
from .describing import Picture, describe
from .images import animate, as_pixels, show_images, show_rows, tile
from .lesson01 import coefficients, heatmap_with_paths, kinds_of_process, paths_and_drift, two_chains, ways_back
from .lesson02 import cumulative_shares, images_with_values, paths, signal_and_noise, sum_of_noises, walk_and_jump
from .lesson03 import over_t_and_log_snr, schedule_curves, scores, shares_below, work_and_steps
from .lesson04 import ablations, attention_maps, codes_and_gram, maps, time_and_memory, unet_diagram
from .lesson05 import best_guesses, bits_against_std, losses_per_t, score_fields, trained_answers
from .lesson06 import descent, on_one_scale, power_spectrum, spectra, variances, ways_down
from .lesson08 import bias_curves, class_bars, gaussian_pairs, rate_and_distortion
from .lesson09 import circle, over_calls, two_slopes, visits
from .lesson10 import accuracy_over_t, against_scale, gradient_maps
from .lesson11 import against, clouds, field_and_walkers, paths_in_panels
from .lesson12 import over_steps, weights
from .lesson13 import symptoms
from .live import LiveTraining, curve_with_samples
