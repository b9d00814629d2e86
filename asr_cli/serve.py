"""``asr serve``: the whole service on one machine."""

import argparse
import asyncio
import importlib.util
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from asr_cli.gpus import count_gpus
from asr_cli.output import shown
from asr_cli.private_folder import holds_sockets, private_folder
from asr_cli.processes import ProcessGroup
from asr_cli.supervision import Supervision
from asr_cli.topology import (
    GATEWAY,
    ServePlan,
    child_environment,
    gateway_arguments,
    name_of,
    place_workers,
    worker_arguments,
    worker_devices,
)
from asr_cli.usage import UsageError
from shared.allowed import Choice, Kind, Range
from shared.config import GatewayConfig, ServiceConfig, WorkerConfig
from shared.config_file import load_config
from shared.config_rules import access_problems, gateway_problems, spool_problems
from shared.errors import ConfigError
from shared.settings import CONFIG, KEYS, LOG, SILENT, Option, add_options, chosen, overridden, section_options

DRAIN_MARGIN_S: Final = 5.0
"""What a process may take beyond its own drain deadline before it is killed."""

WORKERS: Final = Option(
    name="workers",
    kind=Kind(base=int, limits=Range(1, 1024)),
    help="workers for each module (one for each GPU; one on a machine without)",
)
MODEL: Final = Option(
    name="model", kind=Kind(base=str, limits=Choice(("fake",))), help="fake: a model without weights, for tests"
)
_ALIASES: Final = {"host": ("-a", "--addr"), "port": ("-p",)}  # as moshi-server calls them
_SECTION_OPTIONS: Final = tuple(
    option
    for section, names in ((GatewayConfig, {"host", "port", "drain_s"}), (WorkerConfig, {"device"}))
    for option in section_options(section, aliases=_ALIASES)
    if option.name in names
)
OPTIONS: Final = (CONFIG, *_SECTION_OPTIONS, WORKERS, MODEL, LOG, SILENT)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "serve",
        description="Run one gateway and its workers on this machine, start again what dies, and stop in order: "
        "Ctrl-C or SIGTERM lets the running sessions finish. Without a configuration, the demo model is served.",
    )
    add_options(parser, OPTIONS)
    parser.add_argument(
        "--cpu", dest="device", action="store_const", const="cpu", default=argparse.SUPPRESS, help="as --device cpu"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes; return the exit status."""
    values = chosen(args, OPTIONS, os.environ)
    config_path = Path(values["config"]) if "config" in values else demo_config()
    config = load_config(config_path, os.environ).service
    check_lasts(config_path)
    check_gateway(config, overridden(config.gateway, values))
    check_free(overridden(config.gateway, values))
    with private_folder(os.environ) as private_dir:
        plan = make_plan(values, config, config_path, private_dir)
        group = ProcessGroup(
            supervision=Supervision(
                gateways=[GATEWAY],
                workers={worker.name: worker.module for worker in plan.workers},
                gateway_drain_s=overridden(config.gateway, values).drain_s + DRAIN_MARGIN_S,
                worker_drain_s=overridden(config.worker, values).drain_s + DRAIN_MARGIN_S,
            ),
            commands=commands(plan),
            environment=child_environment(os.environ),
            places=places(plan),
            modules=[module.name for module in config.modules],
            title=title(plan),
            warnings=link_warnings(private_dir),
        )
        return asyncio.run(group.run())


def check_lasts(config_path: Path) -> None:
    """See to it that every process can read the configuration, too: what came through a pipe has come for us only.

    Raises:
        UsageError: it did.
    """
    if not config_path.is_file():
        message = f"{shown(config_path)}: is no file that stays; each process reads it, at every start: write it to one"
        raise UsageError(message)


def check_gateway(config: ServiceConfig, gateway: GatewayConfig) -> None:
    """See to it that the gateway will start: it does so only when the workers have fetched and loaded their models.

    Raises:
        ConfigError: it would not; says all that is wrong.
    """
    keys = chosen(argparse.Namespace(), (KEYS,), os.environ).get(KEYS.name, ())
    known = (*config.authorized_ids, *keys)
    problems = [*access_problems(known, gateway), *gateway_problems(gateway), *spool_problems(gateway)]
    if problems:
        raise ConfigError(*problems)


def check_free(gateway: GatewayConfig) -> None:
    """See to it that nobody listens where the gateway shall: the readiness of a stranger would be taken for ours.

    Raises:
        UsageError: somebody does, or there is no such address here.
    """
    try:
        family = socket.getaddrinfo(gateway.host, gateway.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        with socket.create_server((gateway.host, gateway.port), family=family):
            pass
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = reason.partition(" (while attempting to bind")[0]  # said by create_server: the address once more
        message = f"port {gateway.port} of {gateway.host}: {reason}; --port and --host choose another place"
        raise UsageError(message) from error


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


def make_plan(values: Mapping[str, Any], config: ServiceConfig, config_path: Path, private_dir: str) -> ServePlan:
    """Resolve what the settings leave open: devices, endpoints and ports."""
    gateway, worker = overridden(config.gateway, values), overridden(config.worker, values)
    model = values.get(MODEL.name)
    n_gpus = count_gpus(os.environ) if worker.device in {"auto", "cuda"} and model is None else 0
    modules = [module.name for module in config.modules]
    devices = worker_devices(device=worker.device, n_gpus=n_gpus, n_workers=values.get(WORKERS.name))
    n_workers = len(modules) * len(devices)
    spare_ports = free_ports(2 * n_workers + 1)
    return ServePlan(
        config=str(config_path),
        host=gateway.host,
        port=gateway.port or spare_ports.pop(),
        workers=place_workers(
            modules=modules,
            devices=devices,
            endpoints=link_endpoints(private_dir, spare_ports[:n_workers]),
            metrics_ports=spare_ports[n_workers : 2 * n_workers],
        ),
        model=model,
        common_flags=common_flags(values),
    )


def common_flags(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what every child is told as it was told here."""
    flags = [
        (option.flag, str(values[option.name]))
        for option in OPTIONS
        if option.name in {"drain_s", "log"} & values.keys()
    ]
    return (*(word for pair in flags for word in pair), *([SILENT.flag] if values.get(SILENT.name) else []))


def link_endpoints(private_dir: str, ports: Sequence[int]) -> list[str]:
    """Return one endpoint for each of ``ports``: a socket in ``private_dir``, or the port if that cannot hold one."""
    if not holds_sockets(private_dir):
        return [f"tcp://127.0.0.1:{port}" for port in ports]
    return [f"ipc://{private_dir}/{name_of(index)}" for index in range(len(ports))]


def link_warnings(private_dir: str) -> list[str]:
    """Say so if the link is not as private as it should be."""
    if holds_sockets(private_dir):
        return []
    reach = "gateway and workers talk over ports of 127.0.0.1, which every user of this machine can reach"
    return [f"{reach}: no Unix socket can be in {shown(private_dir)}; TMPDIR names a shorter folder, without a blank"]


def free_ports(count: int) -> list[int]:
    """Return ``count`` different TCP ports of the loopback address that nobody listens on now.

    Raises:
        UsageError: there are not so many, or not so many files may be open.
    """
    try:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for sock in sockets:
                sock.bind(("127.0.0.1", 0))
            return [sock.getsockname()[1] for sock in sockets]
    except OSError as error:
        message = f"no {count} free ports, two for each worker: {error.strerror}; --workers asks for fewer"
        raise UsageError(message) from error


def commands(plan: ServePlan) -> dict[str, list[str]]:
    """Return the command line of each child, by name."""
    # -P: files in the working directory are none of their modules.
    python = [sys.executable, "-P", "-m"]
    lines = {worker.name: [*python, "asr_worker", *worker_arguments(plan, worker)] for worker in plan.workers}
    lines[GATEWAY] = [*python, "asr_gateway", *gateway_arguments(plan)]
    return lines


def places(plan: ServePlan) -> dict[str, tuple[str, int]]:
    """Return where each child answers ``/readyz``, by name."""
    workers = {worker.name: ("127.0.0.1", worker.metrics_port) for worker in plan.workers}
    return {**workers, GATEWAY: (reachable(plan.host), plan.port)}


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
