"""The old address of the kernel manager: grading folders written earlier name it in their nbgrader_config.py."""

from .classroom.kernels import PatientKernelManager  # noqa: F401
