"""Denoising diffusion probabilistic models, from one noisy pixel to a trained image generator.

The notebooks in `notebooks/` teach; these modules are the working implementation that they import. Three layers:

to read      the diffusion itself, one module a lesson where that works: `schedules`, `diffusion`, `blocks`, `unet`,
             `losses`, `bound`, `samplers`, `training`, in this order; beside them `data`, `toy`, `metrics`, `plots`
to check     `exercises` holds what each exercise asks and what goes wrong, `checks` judges a student's function by it;
             `capstone` trains with a student's own file, `lab` opens the lessons
to teach     `classroom` builds the notebooks, hands them out and reports on what comes back; not in the wheel

A module imports only from what stands before it. Importing the package alone imports none of them and stays quick.
"""

__version__ = "0.1.0"

# Where notebooks and package come from: OWNER/NAME on GitHub, and the branch or tag. Badges, links and the setup cells
# are made from these two; `python -m ddpm_course.classroom publish OWNER/NAME@TAG` changes all of them together.
REPOSITORY = "ddpm-course/ddpm_course"
REF = "main"
