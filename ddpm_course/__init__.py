"""Denoising diffusion probabilistic models, from one noisy pixel to a trained image generator.

The notebooks in `notebooks/` teach; these modules are the working implementation that they import, one module a
lesson where that works. Read them from top to bottom: `schedules`, `diffusion`, `unet`, `losses`, `samplers`,
`training`. Importing the package alone imports none of them and stays quick.
"""

__version__ = "0.1.0"

# Where notebooks and package come from: OWNER/NAME on GitHub, and the branch or tag. Badges, links and the setup cells
# are made from these two; `python -m ddpm_course.editions publish OWNER/NAME@REF` changes all of them together.
REPOSITORY = "ddpm-course/ddpm_course"
REF = "main"
