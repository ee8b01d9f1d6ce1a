"""Two switches in the environment: whether budgets are shortened, and whether a student's work is written to disk."""

import os


def graded() -> bool:
    """Whether nbgrader runs this: it sets NBGRADER_EXECUTION while it autogrades and validates."""
    return "NBGRADER_EXECUTION" in os.environ


def fast_mode() -> bool:
    """Whether budgets are shortened to seconds: in tests (DDPM_COURSE_FAST=1), and while exercises are graded."""
    return os.environ.get("DDPM_COURSE_FAST") == "1" or graded()


def saving() -> bool:
    """Whether what a student makes is kept; not with DDPM_COURSE_SAVE=0 (tests), nor while exercises are graded."""
    return os.environ.get("DDPM_COURSE_SAVE") != "0" and not graded()
