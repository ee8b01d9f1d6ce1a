"""Denoising diffusion probabilistic models, from one noisy pixel to a trained image generator.

The notebooks in `notebooks/` teach; these modules are the working implementation that they import, one module a
lesson where that works. Read them from top to bottom: `schedules`, `diffusion`, `unet`, `losses`, `samplers`,
`training`. Importing the package alone imports none of them and stays quick.
"""

__version__ = "0.1.0"
REPOSITORY = "ddpm-course/ddpm_course"  # OWNER/NAME on GitHub; badges, links and the setup cell are made from it
