"""How many live streams one core's gateway carries, beside two bare aiohttp servers that read the same bytes.

    python -m bench.gateway [--sessions 256] [--packings float80 float20 opus20] [--at-once 64]

What is measured is the server's CPU time for each frame of 80 ms, all its threads included, while clients send as fast
as it reads: ``at_once`` sessions' messages wait for it whenever its loop turns, as on a core that is nearly full (with
1000 streams at 80 ms, 64 messages are 5 ms). Connecting is not counted. The servers take turns with the same
clients and bytes; a share is the median of the turns' ratios. Streams per core is 80 ms divided by that CPU time.

    echo     sends back each message as it came: as many bytes out as in. (For floats a gateway moves about as many: it
             passes 7.7 kB of each frame on to a worker. At 20 ms the echo writes four times as often.)
    listener reads the same, and writes a Step of as many bytes as ours for each frame: less than any gateway can do

The gateway does the listener's work at its clients' sockets. (Our words travel in the same packets as Steps.) What it
does beyond that is no part of that floor: it checks and decodes the samples, passes them on to a worker, and tells
words, which cost it a fifth of its time and of which neither server knows anything.

Clients and a worker with the fake model run on the other core; ``--one-core`` puts everything on core 1, where the
caches are colder for all. Opus has another floor, the listener plus libopus: nobody decodes a packet for less than
libopus takes, called as the gateway calls it, for one stream whose state stays in the cache.

Aims (issue 4): at least 70 % of the streams of an echo of the same bytes, and above 1000 at 80 ms.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.packets import PACKINGS, make_packets, speech
from bench.processes import PATH, await_ready, cpu_s, free_port, pin, running, service
from bench.report import Report, median
from bench.volley import Volleys, run_volleys
from shared.flavour import COMPILED, flavour, is_compiled
from shared.units import FRAME_SAMPLES, SAMPLE_RATE

LIMIT = "the bytes of a stream through bare aiohttp WebSockets on the same core, and libopus for Opus"
AIM = 0.7
STEP_MS = 20.0
FRAME_US = 80e3
MESSAGES_PER_STEP = {"float80": 1, "float20": 4, "opus20": 4}


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=256)
    parser.add_argument("--at-once", type=int, default=64, help="messages that wait whenever the server's loop turns")
    parser.add_argument(
        "--frames", type=int, default=40, help="of each session, in each turn; words come from the seventh on"
    )
    parser.add_argument("--packings", nargs="+", choices=PACKINGS, default=list(PACKINGS))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each server; the medians count")
    parser.add_argument("--one-core", action="store_true", help="everything on core 1")
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    options = parser.parse_args(arguments)
    report = Report("gateway", LIMIT, {k: str(v) for k, v in vars(options).items()})
    report.note(flavour=flavour())
    pin(0, 1)
    if hasattr(os, "SCHED_BATCH"):
        # On one core, a client that is written to would else interrupt the server; from afar it cannot.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    rows = [compare(packing, options) for packing in options.packings]
    report.table(rows)
    report.finish(keep=options.keep, label=COMPILED if is_compiled() else "")
    return 0


def compare(packing: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return one line of the table."""
    core = 1 if options.one_core else 0
    turns: list[tuple[float, ...]] = []
    with (
        our_gateway(options.sessions + 1, core) as gateway,
        bare_server(core) as echo,
        bare_server(core, "--every", str(MESSAGES_PER_STEP[packing])) as listener,
    ):
        for turn in range(options.rounds + 1):
            spent = tuple(measure(*server, packing, options) for server in (gateway, echo, listener))
            if turn:  # The first one warms up.
                turns.append(spent)
    ours, echoed, heard = zip(*turns, strict=True)
    libopus = libopus_us_per_frame(core) if packing == "opus20" else 0.0

    def share(floors_us: Sequence[float]) -> float:
        return median([floor_us / us for us, floor_us in zip(ours, floors_us, strict=True)])

    return {
        "packing": packing,
        "cpu_us_per_frame": median(ours),
        "echo_us_per_frame": median(echoed),
        "listener_us_per_frame": median(heard),
        "libopus_us_per_frame": libopus,
        "streams_per_core": FRAME_US / median(ours),
        "echo_streams_per_core": FRAME_US / median(echoed),
        "listener_streams_per_core": FRAME_US / median(heard),
        "share_of_echo": share(echoed),
        "aim": AIM,
        "share_of_listener": share(heard),
        "share_of_listener_and_libopus": share([us + libopus for us in heard]),
        "least_us": min(ours),
        "echo_least_us": min(echoed),
        "listener_least_us": min(heard),
    }


def measure(url: str, pid: int, packing: str, options: argparse.Namespace) -> float:
    """Run the clients against one server; return its CPU microseconds for each frame."""
    volleys = Volleys(
        url=url + PATH,
        key="public_token",
        n_clients=options.sessions,
        at_once=options.at_once,
        n_frames=options.frames,
    )
    packets = make_packets(packing, None, minutes=options.frames * 0.08 / 60)
    spent_s = uvloop.run(run_volleys(volleys, packets, lambda: exact_cpu_s(pid)))
    time.sleep(0.1)  # The server notices that the clients are gone.
    return 1e6 * spent_s


def exact_cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its threads, in nanoseconds' steps where Linux counts so, else in ticks."""
    try:
        tasks = [(task / "schedstat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return cpu_s(pid)
    return sum(int(task.split()[0]) for task in tasks) / 1e9


def libopus_us_per_frame(core: int) -> float:
    """Return what libopus alone takes for the packets of one frame, on the servers' core."""
    import opuslib  # noqa: PLC0415  (needs a system library; floats do not)

    n_samples = FRAME_SAMPLES // 4
    chunks = (speech(None) * 32_767).astype("<i2").reshape(-1, n_samples)
    encoder = opuslib.Encoder(SAMPLE_RATE, 1, opuslib.APPLICATION_VOIP)
    packets = [encoder.encode(chunk.tobytes(), n_samples) for chunk in chunks]
    out = np.zeros(n_samples, np.float32)
    pointer = out.ctypes.data_as(opuslib.api.c_float_pointer)
    decode = opuslib.api.libopus["opus_decode_float"]
    times_s = []
    pin(0, core)
    for _ in range(5):
        decoder = opuslib.Decoder(SAMPLE_RATE, 1)
        begun_s = time.thread_time()
        for packet in packets:
            decode(decoder.decoder_state, packet, len(packet), pointer, n_samples, 0)
        times_s.append(time.thread_time() - begun_s)
    pin(0, 1)
    return 1e6 * min(times_s) / len(packets) * 4


@contextlib.contextmanager
def our_gateway(n_sessions: int, core: int) -> Iterator[tuple[str, int]]:
    """Run a gateway with a fake worker; yields its address and pid."""
    flags = ["--model", "fake", "--fake-slots", str(n_sessions), "--fake-codebooks", "32"]
    # As on a GPU that is well used: a step answers many frames at once.
    flags += ["--fake-step-ms", str(STEP_MS)]
    with service(flags, worker_core=1, gateway_core=core) as ours:
        yield ours.url, ours.gateway_pid


@contextlib.contextmanager
def bare_server(core: int, *flags: str) -> Iterator[tuple[str, int]]:
    """Run a bare server; yields its address and pid."""
    port = free_port()
    command = (sys.executable, "-m", "bench.echo", "--port", str(port), *flags)
    with running(*command, core=core) as process:
        url = f"http://127.0.0.1:{port}"
        await_ready(url, process)
        yield url, process.pid


if __name__ == "__main__":
    sys.exit(main())
