"""The link's two directions over real ZeroMQ sockets, beside bare sockets that move the same bytes.

    python -m bench.link

A second process floods or swallows; what is measured is the CPU time of this one, ZeroMQ's own thread included.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import zmq

from asr_worker.io.link import QUEUED_MESSAGES, Delivery, Link
from bench.report import Report
from bench.wire import audio_block, step_block
from shared.wire import encode

LIMIT = "a bare ROUTER that moves the same parts and looks at none of them"
PEER = b"gw:bench"
PATIENCE_MS = 10_000
BATCH = 256


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--frames", type=int, default=20_000, help="rows that are moved for each figure")
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    options = parser.parse_args(arguments)
    report = Report("link", LIMIT, {"rows": options.rows, "frames": options.frames})
    rows: list[dict[str, Any]] = []
    for n in options.rows:
        n_messages = max(BATCH, options.frames // n)
        for direction, run in (("AudioBlock in", receive_us), ("StepBlock out", send_us)):
            bare_us, ours_us = run(n, n_messages, Bare), run(n, n_messages, Ours)
            rows.append(
                {
                    "direction": direction,
                    "rows": n,
                    "ours_us": ours_us,
                    "bare_us": bare_us,
                    "added_us": ours_us - bare_us,
                    "ours_us_per_row": ours_us / n,
                }
            )
    report.table(rows)
    report.finish(keep=options.keep)
    return 0


class Ours:
    """The worker's ``Link``: decodes what comes, encodes what goes."""

    def __init__(self, endpoint: str, n_rows: int) -> None:
        self._link = Link(gateway_timeout_s=PATIENCE_MS / 1e3)
        self._link.bind(endpoint)
        self._block = step_block(n_rows)

    def receive(self) -> int:
        """Take what is there; return how many messages that were."""
        return sum(1 for _ in self._link.drain(BATCH))

    def send(self) -> bool:
        """Send one block; return whether the socket took it."""
        return self._link.send(PEER, self._block) is Delivery.TAKEN

    def wait(self) -> None:
        """Wait for input."""
        self._link.wait(PATIENCE_MS / 1e3)

    def close(self) -> None:
        """Close the socket."""
        self._link.close()


class Bare:
    """A ROUTER and nothing else."""

    def __init__(self, endpoint: str, n_rows: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in ((zmq.LINGER, 0), (zmq.ROUTER_MANDATORY, 1)):
            self._socket.setsockopt(option, value)
        self._socket.set_hwm(QUEUED_MESSAGES)
        self._socket.bind(endpoint)
        self._parts = [PEER, *(bytes(part) for part in encode(step_block(n_rows)))]

    def receive(self) -> int:
        """Take what is there; return how many messages that were."""
        for n in range(BATCH):
            try:
                self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return n
        return BATCH

    def send(self) -> bool:
        """Send one block; return whether the socket took it."""
        try:
            self._socket.send_multipart(self._parts, zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
            raise
        return True

    def wait(self) -> None:
        """Wait for input."""
        self._socket.poll(PATIENCE_MS)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._context.term()


def receive_us(n_rows: int, n_messages: int, kind: type[Ours | Bare]) -> float:
    """Return the CPU time of receiving one AudioBlock."""
    parts = [bytes(part) for part in encode(audio_block(n_rows))]

    def work(end: Ours | Bare) -> None:
        n_left, patience_s = n_messages, time.monotonic() + PATIENCE_MS / 1e3
        while n_left > 0:
            n = end.receive()
            n_left -= n
            if not n:
                assert time.monotonic() < patience_s, "the flood has dried up"
                end.wait()

    return measured_us(kind, n_rows, n_messages, flood, parts, work)


def send_us(n_rows: int, n_messages: int, kind: type[Ours | Bare]) -> float:
    """Return the CPU time of sending one StepBlock."""

    def work(end: Ours | Bare) -> None:
        n_left, patience_s = n_messages, time.monotonic() + PATIENCE_MS / 1e3
        while n_left > 0:
            if end.send():
                n_left -= 1
            else:
                assert time.monotonic() < patience_s, "the peer does not read"
                time.sleep(1e-3)

    return measured_us(kind, n_rows, n_messages, swallow, [], work)


def measured_us(  # noqa: PLR0917  (all of one kind of call)
    kind: type[Ours | Bare],
    n_rows: int,
    n_messages: int,
    peer: Callable[[str, list[bytes], int], None],
    parts: list[bytes],
    work: Callable[[Ours | Bare], None],
) -> float:
    """Run ``work`` against a peer process; return this process's CPU time for each message."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/link"
        end = kind(endpoint, n_rows)
        process = multiprocessing.get_context("spawn").Process(target=peer, args=(endpoint, parts, n_messages))
        process.start()
        try:
            # The peer's first message says that it is there.
            end.wait()
            end.receive()
            started_s = time.process_time()
            work(end)
            cpu_s = time.process_time() - started_s
        finally:
            process.join(PATIENCE_MS / 1e3)
            process.kill()
            end.close()
    return 1e6 * cpu_s / n_messages


def flood(endpoint: str, parts: list[bytes], n_messages: int) -> None:
    """Send the same message again and again. Runs in a process of its own."""
    socket = _peer(endpoint)
    for _ in range(n_messages + BATCH):
        socket.send_multipart(parts)
    socket.close()
    # Waits until all has left; the end of the process would not.
    zmq.Context.instance().term()


def swallow(endpoint: str, _parts: list[bytes], n_messages: int) -> None:
    """Say hello, then receive without looking. Runs in a process of its own."""
    socket = _peer(endpoint)
    socket.send_multipart([bytes(part) for part in encode(audio_block(1))])
    for _ in range(n_messages):
        socket.recv_multipart()
    socket.close()


def _peer(endpoint: str) -> "zmq.Socket[bytes]":
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, PATIENCE_MS)
    socket.setsockopt(zmq.ROUTING_ID, PEER)
    socket.set_hwm(QUEUED_MESSAGES)
    socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
    socket.setsockopt(zmq.SNDTIMEO, PATIENCE_MS)
    socket.connect(endpoint)
    return socket


if __name__ == "__main__":
    sys.exit(main())
