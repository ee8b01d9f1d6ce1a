"""The client that runs notebooks: a reply is noticed even where something was sent on the same socket as it came."""

import asyncio
import time
from queue import Empty

import pytest
import zmq
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.session import Session

from ddpm_course.classroom.kernels import PatientChannel, PatientKernelClient, PatientKernelManager


async def receive(kind, *, swallowed: bool):
    """Wait for a reply on a channel of this kind. `swallowed`: something is sent just after the reply has arrived."""
    context, session = zmq.asyncio.Context(), Session(key=b"key")
    kernel, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    try:
        kernel.linger = client.linger = 0
        port = kernel.bind_to_random_port("tcp://127.0.0.1")
        client.connect(f"tcp://127.0.0.1:{port}")
        channel = kind(client, session, None)
        channel.send(session.msg("execute_request"))
        identity, *_ = await kernel.recv_multipart()
        waiting = asyncio.create_task(channel.get_msg(timeout=600))
        await asyncio.sleep(0.2)  # it waits now
        session.send(kernel, "execute_reply", ident=identity)
        if swallowed:
            time.sleep(0.2)  # the reply arrives while the loop is busy ...
            channel.send(session.msg("comm_msg"))  # ... with answering a widget
        return await waiting
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize("swallowed", [False, True])
def test_a_reply_is_noticed(swallowed):
    reply = asyncio.run(asyncio.wait_for(receive(PatientChannel, swallowed=swallowed), 30))
    assert reply["msg_type"] == "execute_reply"


def test_the_usual_channel_misses_it():
    """Otherwise this module is not needed any more. The reply is there all the time."""
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(receive(AsyncZMQSocketChannel, swallowed=True), 4))


def test_a_reply_that_does_not_come_is_not_waited_for_longer():
    async def nothing_comes():
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as client:
            await PatientChannel(client, Session(), None).get_msg(timeout=1.5)

    with pytest.raises(Empty):
        asyncio.run(asyncio.wait_for(nothing_comes(), 20))


def test_the_manager_makes_such_clients():
    client = PatientKernelManager().client()
    assert isinstance(client, PatientKernelClient) and client.shell_channel_class is PatientChannel
