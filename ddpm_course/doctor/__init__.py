"""A doctor for anybody's diffusion model: what is wrong, by its effects, and which lesson explains it (lesson 13).

    from ddpm_course.doctor import examine
    examine(net, diffusion, images, labels)

For a checkpoint of this course: python -m ddpm_course.doctor CHECKPOINT. The probes are in `inputs` (data and
schedule), `network` and `outcome` (samples and losses); `patient` asks the network, `findings` prints.
"""

from .examination import examine
from .findings import Examination, Finding, Probe

__all__ = ["Examination", "Finding", "Probe", "examine"]
