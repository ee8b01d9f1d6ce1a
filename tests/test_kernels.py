"""The client that runs notebooks: a reply is noticed even where something was sent on the same socket as it came."""

import asyncio
import time

import pytest
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.session import Session

from ddpm_course.classroom.kernels import PatientChannel, PatientKernelManager


async def reply_beside_widgets(kind):
    """Wait for a reply on a channel of this kind, on which something is sent just after the reply has arrived."""
    context, session = zmq.asyncio.Context(), Session(key=b"key")
    kernel, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    try:
        client.connect(f"tcp://127.0.0.1:{kernel.bind_to_random_port('tcp://127.0.0.1')}")
        channel = kind(client, session, None)
        channel.send(session.msg("execute_request"))
        identity, *_ = await kernel.recv_multipart()
        waiting = asyncio.create_task(channel.get_msg(timeout=600))
        await asyncio.sleep(0.2)  # it waits now
        session.send(kernel, "execute_reply", ident=identity)
        time.sleep(0.2)  # the reply arrives while the loop is busy ...
        channel.send(session.msg("comm_msg"))  # ... with answering a widget
        return (await waiting)["msg_type"]
    finally:
        context.destroy(linger=0)


def test_a_reply_is_noticed_that_comes_beside_widgets():
    assert asyncio.run(asyncio.wait_for(reply_beside_widgets(PatientChannel), 30)) == "execute_reply"
    assert PatientKernelManager().client().shell_channel_class is PatientChannel
    with pytest.raises(asyncio.TimeoutError):  # the usual channel misses it: otherwise this module is not needed
        asyncio.run(asyncio.wait_for(reply_beside_widgets(AsyncZMQSocketChannel), 3))
