"""The gateway's end of the link, against a ROUTER that the test holds."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from asr_gateway.core.limits import AudioAccount, AudioBounds, ByteBudget
from asr_gateway.core.session import Session
from asr_gateway.io.worker_link import WorkerLink
from shared.messages import AudioBlock, Hello, SessionKind, ToGateway, ToWorker, Welcome
from shared.units import FRAME_SAMPLES, SessionId
from shared.wire import decode_to_worker, encode

WELCOME = Welcome(
    version=1,
    worker="wk:test",
    module="asr",
    fingerprint="f",
    n_sessions=1,
    n_heads=4,
    n_codebooks=8,
    delay_frames=6,
    context_frames=100,
    codec_context_frames=100,
    window_frames=25,
    device="cpu",
    dtype="float32",
)


class Owner:
    """Writes down what a link tells it; welcomes as a gateway does."""

    def __init__(self) -> None:
        self.was_new: list[bool] = []
        self.losses: list[str] = []

    def received(self, link: WorkerLink, message: ToGateway) -> None:
        assert message == WELCOME
        self.was_new.append(link.welcome())

    def link_lost(self, link: WorkerLink, reason: str) -> None:
        assert not link.is_welcome
        self.losses.append(reason)


class Router:
    """A worker's socket."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._socket = context.socket(zmq.ROUTER)
        self.endpoint = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._gateway = b""

    async def hello(self, link: WorkerLink) -> Hello:
        """Wait for the next Hello of ``link``."""
        while True:
            link.pulse(asyncio.get_running_loop().time())
            message = self.heard(10)
            if isinstance(message, Hello):
                return message
            await asyncio.sleep(0)

    def heard(self, patience_ms: int) -> ToWorker | None:
        """Return the next message, None if there is none in time."""
        if not self._socket.poll(patience_ms):
            return None
        self._gateway, *parts = self._socket.recv_multipart()
        return decode_to_worker(parts)

    def welcome(self) -> None:
        self.say(*encode(WELCOME))

    def say(self, *parts: bytes | memoryview) -> None:
        self._socket.send_multipart([self._gateway, *parts])

    def close(self) -> None:
        self._socket.close(linger=0)


def _all_sockets(context: "zmq.Context[zmq.Socket[bytes]]") -> "Iterator[zmq.Socket[bytes]]":
    """Take every socket that ``context`` still has."""
    with contextlib.suppress(zmq.ZMQError):
        while True:
            yield context.socket(zmq.DEALER)


@pytest.fixture
def context() -> "Iterator[zmq.Context[zmq.Socket[bytes]]]":
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    async def wait(is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_true():  # noqa: ASYNC110 the event is in the link's owner
                await asyncio.sleep(0.005)

    return wait


async def test_a_worker_that_is_gone_is_noticed_by_its_closed_connection(
    context: "zmq.Context[zmq.Socket[bytes]]", eventually: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    router, owner = Router(context), Owner()
    link = WorkerLink(endpoint=router.endpoint, label="worker", context=context, owner=owner)
    link.open()
    await router.hello(link)
    router.welcome()
    await eventually(lambda: owner.was_new == [True])

    router.close()

    # Nobody calls pulse any more: the event loop alone has to bring the news.
    await eventually(lambda: owner.losses == ["it closed the connection"])
    link.close()


async def test_a_second_welcome_says_that_the_worker_began_anew(
    context: "zmq.Context[zmq.Socket[bytes]]", eventually: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    router, owner = Router(context), Owner()
    link = WorkerLink(endpoint=router.endpoint, label="worker", context=context, owner=owner)
    link.open()
    await router.hello(link)
    router.welcome()
    router.welcome()

    await eventually(lambda: owner.was_new == [True, False])
    link.close()
    router.close()


async def test_a_link_that_cannot_be_opened_again_is_tried_until_it_can(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    context.set(zmq.MAX_SOCKETS, 8)
    router, owner = Router(context), Owner()
    link = WorkerLink(endpoint=router.endpoint, label="worker", context=context, owner=owner)
    link.open()
    first = (await router.hello(link)).gateway
    link.close()
    hoarded = list(_all_sockets(context))

    link.reopen()
    for socket in hoarded:
        socket.close()

    async with asyncio.timeout(10):
        assert (await router.hello(link)).gateway != first
    link.close()
    router.close()


async def test_a_worker_that_takes_nothing_is_lost_at_the_next_pulse_and_not_amid_sending(
    context: "zmq.Context[zmq.Socket[bytes]]", eventually: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    router, owner = Router(context), Owner()
    link = WorkerLink(endpoint=router.endpoint, label="worker", context=context, owner=owner)
    link.open()
    await router.hello(link)
    router.welcome()
    await eventually(lambda: owner.was_new == [True])

    # 40 MB: more than the kernel and ZeroMQ's queues hold.
    for _ in range(10_000):
        link.send(Hello(version=1, gateway="x" * 4_000))
    assert owner.losses == []

    link.pulse(asyncio.get_running_loop().time())
    assert owner.losses == ["it took none of the last 1024 messages"]
    link.close()
    router.close()


async def test_messages_that_are_none_are_told_of_less_and_less_often(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    router = Router(context)
    with capture_logs() as logs:
        link = WorkerLink(endpoint=router.endpoint, label="worker", context=context, owner=Owner())
        link.open()
        await router.hello(link)
        for _ in range(9):
            router.say(b"\x00")
        async with asyncio.timeout(10):
            while link.n_received < 9:  # noqa: ASYNC110 (the socket tells the loop, not us)
                await asyncio.sleep(0.005)
        link.close()
    router.close()

    assert [line["refused"] for line in logs] == [1, 2, 4, 8]


async def test_a_block_waits_as_long_as_every_turn_of_the_loop_brings_more(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    router = Router(context)
    link = WorkerLink(endpoint=router.endpoint, label="w", context=context, owner=Owner())
    link.open()
    await router.hello(link)

    for number in range(3):
        link.wake(_with_a_frame(number))
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)

    block = router.heard(5_000)
    assert isinstance(block, AudioBlock)
    assert block.sessions.tolist() == [0, 1, 2]
    link.close()
    router.close()


def _with_a_frame(number: int) -> Session:
    bounds = AudioBounds(guaranteed_samples=10 * FRAME_SAMPLES, max_samples=10 * FRAME_SAMPLES)
    account = AudioAccount(ByteBudget(0), bounds)
    session = Session(session_id=SessionId(number), kind=SessionKind.LIVE, account=account)
    session.opening()
    session.grant(25)
    session.receive_audio(np.zeros(FRAME_SAMPLES, np.float32))
    return session
