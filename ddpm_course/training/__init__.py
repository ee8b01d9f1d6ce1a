"""Training (lessons 00, 06 and 07). To read it: `step`, then `loop`; `plan` and `state` are what the loop leans on.

python -m ddpm_course.training --minutes 4 --out model
"""

from ..modes import fast_mode
from .checkpoints import load_checkpoint, load_pretrained, save_checkpoint
from .devices import best_device
from .loop import train
from .plan import learning_rate
from .step import EMA, Run

__all__ = [
    "EMA", "Run", "best_device", "fast_mode", "learning_rate", "load_checkpoint", "load_pretrained", "save_checkpoint",
    "train",
]  # fmt: skip
