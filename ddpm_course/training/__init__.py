"""Training (lessons 00, 06 and 07). To read it: `step`, then `loop`; `plan` and `state` are what the loop leans on.

python -m ddpm_course.training --minutes 4 --out model
"""

# ruff: noqa: F401 - imported for those who train, wherever it is
from ..modes import fast_mode
from .checkpoints import load_checkpoint, load_pretrained, save_checkpoint
from .devices import best_device
from .loop import train
from .plan import learning_rate
from .run import EMA, Run
