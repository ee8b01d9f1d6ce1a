"""A pytest plugin for the notebook tests: a cell that writes to standard error fails.

nbval's lax mode looks at the outputs of marked cells alone, and nbgrader gives no points to a cell that wrote there.
"""

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    streams = [output for output in getattr(item, "test_outputs", []) if output.output_type == "stream"]
    if text := "".join(stream.text for stream in streams if stream.name == "stderr"):
        item.raise_cell_error("The cell wrote to standard error", text)
    return result
