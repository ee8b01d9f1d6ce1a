"""Runs notebooks with sliders: a kernel client that misses no reply; for instructors, imported by no lesson.

While nbclient waits for the reply to a cell, it answers the cell's widgets on the same socket. A message that is sent
can swallow the news of one that has just arrived (ZeroMQ tells of it once), and then both sides wait for ever. The
channel below looks again every second. nbgrader takes the same class, as `c.Execute.kernel_manager_class`.
"""

import time
from queue import Empty

from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.channels import AsyncZMQSocketChannel


class PatientChannel(AsyncZMQSocketChannel):
    """A channel on which no message is missed for longer than a second."""

    async def get_msg(self, timeout: float | None = None) -> dict:
        """The next message. queue.Empty if none comes within `timeout` seconds; None waits for ever."""
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            try:
                return await super().get_msg(timeout=max(0.0, min(1.0, left)))
            except Empty:
                if left <= 1:
                    raise


class PatientKernelClient(AsyncKernelClient):
    """A client with such a channel for requests and their replies."""

    shell_channel_class = PatientChannel


class PatientKernelManager(AsyncKernelManager):
    """What NotebookClient and nbgrader's Execute take as `kernel_manager_class`."""

    client_factory = PatientKernelClient
