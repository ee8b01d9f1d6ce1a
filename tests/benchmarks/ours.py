"""The course's own network and recipe, as lesson 00 has them: read from the lesson, so that they are written once."""

import ast
import inspect

import torch

from ddpm_course import samplers, schedules
from ddpm_course.classroom import editions
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.unet import UNet

NOT_RECIPE = {"minutes", "watch", "checkpoint"}  # keywords of the lesson's call that do not change what is learned


def lesson_00() -> tuple[UNet, GaussianDiffusion, dict]:
    """The network, what its output means, and the keywords of `train` that lesson 00 sets, if any."""
    notebook = editions.read(editions.ROOT / "notebooks" / "solutions" / "00_start_here.ipynb")
    cells = {cell.id: cell.source for cell in notebook.cells}
    names = {"torch": torch, "UNet": UNet, "GaussianDiffusion": GaussianDiffusion, **vars(schedules)}
    names["print"] = lambda text: None
    exec(cells["model"], names)  # the course's own cell: `my_net = UNet(…)`, `my_diffusion = GaussianDiffusion(…)`
    calls = [node for node in ast.walk(ast.parse(cells["train"])) if isinstance(node, ast.Call)]
    call = next(node for node in calls if getattr(node.func, "id", None) == "train")
    keywords = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg not in NOT_RECIPE}
    return names["my_net"], names["my_diffusion"], keywords


def sampler(net, diffusion, shape, labels=None):
    """What `generate` does unless told otherwise: a description, the number of steps, and the steps."""
    steps = inspect.signature(samplers.generate).parameters["steps"].default
    return f"DDIM, {steps} steps", steps, samplers.ddim_steps(net, diffusion, shape, steps, y=labels)
