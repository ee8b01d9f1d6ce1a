"""A doctor for anybody's diffusion model: what is wrong, by its effects, and which lesson explains it (lesson 13).

    from ddpm_course.doctor import examine
    examine(net, diffusion, images, labels)

For a checkpoint of this course: python -m ddpm_course.doctor CHECKPOINT. The probes are in `inputs` (data and
schedule), `network` (its answers), `times`, `labels`, `samples` and `losses`; `examination` has their order, `patient`
asks the network, `findings` prints.
"""

from .examination import PROBES, admit, ask, examine
from .findings import Examination, Finding, Probe
from .patient import Patient

__all__ = ["PROBES", "Examination", "Finding", "Patient", "Probe", "admit", "ask", "examine"]
