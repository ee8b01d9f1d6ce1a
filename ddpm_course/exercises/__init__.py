"""The exercises: for each its number, stub and right answer, the inputs it is checked on, and the mistakes it knows.

`records` says what an exercise is, `lessonNN` holds those of a lesson. `ddpm_course.checks` judges with them.
"""

from .lesson00 import to_model_range
from .lesson01 import diffuse, next_variance, q_step, to_uint8
from .lesson02 import alpha_bars, equal_t, merge_noises, predict_x0, q_sample
from .lesson03 import (
    betas_from_alpha_bars,
    cosine_alpha_bars,
    linear_betas,
    my_alpha_bars,
    prior_bits,
    quadratic_betas,
    rescaled_betas,
)
from .lesson04 import (
    attention,
    residual_forward,
    sinusoidal_embedding,
    skip_channels,
    space_to_depth,
    transposed_convolution,
    unet_forward,
)
from .lesson05 import (
    discretised_log_likelihood,
    gaussian_kl,
    loss_weight,
    mean_from_noise,
    posterior,
    simple_loss,
    training_loop,
    training_step,
)
from .lesson06 import ancestral_loop, estimate_x0, posterior_step, repaired_sampler, reverse_variance
from .lesson08 import (
    bits_per_dimension,
    count_scores,
    frechet_limit,
    frechet_of_gaussians,
    nearest,
    step_bits,
)
from .records import Aim, Betas, Case, Exercise, Mistake, Rounded, Seed

EXERCISES = (
    to_model_range,
    *(to_uint8, q_step, diffuse, next_variance),
    *(merge_noises, alpha_bars, q_sample, predict_x0, equal_t),
    *(linear_betas, quadratic_betas, cosine_alpha_bars, betas_from_alpha_bars, prior_bits, rescaled_betas),
    my_alpha_bars,
    *(sinusoidal_embedding, attention, space_to_depth, transposed_convolution, skip_channels, residual_forward),
    unet_forward,
    *(gaussian_kl, posterior, mean_from_noise, loss_weight, simple_loss, discretised_log_likelihood),
    *(training_step, training_loop),
    *(estimate_x0, reverse_variance, posterior_step, ancestral_loop, repaired_sampler),
    *(bits_per_dimension, step_bits, frechet_of_gaussians, frechet_limit, nearest, count_scores),
)  # in the course's order

__all__ = ["EXERCISES", "Aim", "Betas", "Case", "Exercise", "Mistake", "Rounded", "Seed"]
