"""``asr serve``: the whole service on one machine."""

import argparse
import asyncio
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from asr_cli.gpus import count_gpus
from asr_cli.processes import ProcessGroup
from asr_cli.supervision import Supervision
from asr_cli.topology import ServePlan, gateway_arguments, place_workers, worker_arguments, worker_devices
from asr_cli.usage import UsageError, from_environment
from shared.config import ServiceConfig
from shared.config_file import load_config

DRAIN_MARGIN_S: Final = 5.0
"""What a process may take beyond its own drain deadline before it is killed."""

LONGEST_SOCKET_PATH: Final = 100
"""A Unix socket's path holds 107 characters; ZeroMQ needs a few of its own."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "serve",
        description="Run one gateway and its workers on this machine, start again what dies, and stop in order: "
        "Ctrl-C or SIGTERM lets the running sessions finish. Each flag can also be set as ASR_<FLAG>.",
    )
    parser.add_argument("--config", default=from_environment("config"), help="TOML file (default: the demo model)")
    parser.add_argument("--host", "--addr", default=from_environment("host"), help="address to listen on")
    parser.add_argument("--port", type=int, default=from_environment("port"), help="port to listen on; 0: a free one")
    parser.add_argument(
        "--workers",
        type=positive_count,
        default=from_environment("workers"),
        metavar="N",
        help="workers for each module (default: one for each GPU, one without GPUs)",
    )
    parser.add_argument("--device", default=from_environment("device"), help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--cpu", dest="device", action="store_const", const="cpu", help="same as --device cpu")
    parser.add_argument("--model", type=model_name, default=from_environment("model"), help="fake: needs no weights")
    parser.add_argument(
        "--log", "-l", default=from_environment("log"), metavar="LEVEL", help="debug, info, warning ..."
    )
    parser.add_argument("--silent", action="store_true", help="log to the file only")
    parser.set_defaults(run=run)


def positive_count(text: str) -> int:
    """Return a count of at least 1; argparse turns the ValueError into its message."""
    count = int(text)
    if count < 1:
        message = f"{count} is less than 1"
        raise argparse.ArgumentTypeError(message)
    return count


def model_name(text: str) -> str:
    """Return the only model that is chosen by name; all others come from the configuration."""
    if text != "fake":
        message = f"{text!r} is not known; 'fake' is"
        raise argparse.ArgumentTypeError(message)
    return text


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes; return the exit status."""
    config_path = demo_config() if args.config is None else Path(args.config)
    config = load_config(config_path, os.environ).service
    private_dir = tempfile.mkdtemp(prefix="asr-")  # only this user may enter it
    try:
        plan = make_plan(args, config, config_path, private_dir)
        group = ProcessGroup(
            supervision=Supervision(
                gateways=["gateway"],
                workers=[worker.name for worker in plan.workers],
                gateway_drain_s=config.gateway.drain_s + DRAIN_MARGIN_S,
                worker_drain_s=config.worker.drain_s + DRAIN_MARGIN_S,
            ),
            commands=commands(plan),
            host=reachable(plan.host),
            port=plan.port,
            title=title(plan),
        )
        return asyncio.run(group.run())
    finally:
        shutil.rmtree(private_dir, ignore_errors=True)


def demo_config() -> Path:
    """Return the configuration of the demo model, which lies in the worker's package.

    Raises:
        UsageError: the package is not installed here.
    """
    spec = importlib.util.find_spec("asr_worker")
    if spec is None or not spec.submodule_search_locations:
        message = "the package asr_worker is not installed here, and with it the demo model; give --config FILE"
        raise UsageError(message)
    return Path(spec.submodule_search_locations[0]) / "demo" / "demo.toml"


def make_plan(args: argparse.Namespace, config: ServiceConfig, config_path: Path, private_dir: str) -> ServePlan:
    """Resolve what the flags leave open: devices, endpoints and ports."""
    device = args.device or config.worker.device
    n_gpus = count_gpus(os.environ) if device in {"auto", "cuda"} and args.model is None else 0
    modules = [module.name for module in config.modules]
    devices = worker_devices(device=device, n_gpus=n_gpus, n_workers=args.workers)
    n_workers = len(modules) * len(devices)
    host = config.gateway.host if args.host is None else args.host
    port = config.gateway.port if args.port is None else args.port
    spare_ports = free_ports(2 * n_workers + 1)
    return ServePlan(
        config=str(config_path),
        host=host,
        port=port or spare_ports.pop(),
        workers=place_workers(
            modules=modules,
            devices=devices,
            endpoints=link_endpoints(private_dir, spare_ports[:n_workers]),
            metrics_ports=spare_ports[n_workers : 2 * n_workers],
        ),
        model=args.model,
        log_flags=(*(("--log", args.log) if args.log else ()), *(("--silent",) if args.silent else ())),
    )


def link_endpoints(private_dir: str, ports: Sequence[int]) -> list[str]:
    """Return one endpoint for each of ``ports``: a socket in ``private_dir``, or the port if the path is too long."""
    if len(private_dir) > LONGEST_SOCKET_PATH:
        return [f"tcp://127.0.0.1:{port}" for port in ports]
    return [f"ipc://{private_dir}/{index}" for index in range(len(ports))]


def free_ports(count: int) -> list[int]:
    """Return ``count`` different TCP ports of the loopback address that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def commands(plan: ServePlan) -> dict[str, list[str]]:
    """Return the command line of each child, by name."""
    lines = {
        worker.name: [sys.executable, "-m", "asr_worker", *worker_arguments(plan, worker)] for worker in plan.workers
    }
    lines["gateway"] = [sys.executable, "-m", "asr_gateway", *gateway_arguments(plan)]
    return lines


def reachable(host: str) -> str:
    """Return where a service that listens on ``host`` answers on this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound


def title(plan: ServePlan) -> str:
    """Say in a few words what is served."""
    count = len(plan.workers)
    model = "the fake model" if plan.model == "fake" else Path(plan.config).name
    return f"{model}, {count} worker{'s' if count > 1 else ''} on {', '.join(unique_devices(plan))},"


def unique_devices(plan: ServePlan) -> list[str]:
    """Return the devices in use, each once, in order."""
    return list(dict.fromkeys(worker.device for worker in plan.workers))
