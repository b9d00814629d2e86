"""Which processes one machine needs, and with which arguments. Pure: what the machine has is passed in.

asr serve ─┬─ gateway      --worker ENDPOINT ... --scrape NAME=URL ...
           ├─ worker-0     --bind ENDPOINT --device cuda:0 --metrics-port P
           └─ worker-1     --bind ENDPOINT --device cuda:1 --metrics-port P
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

GATEWAY: Final = "gateway"
"""The name of the gateway among the processes."""
_OF_ONE_WORKER: Final = "ASR_ANNOUNCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlace:
    """One worker: its module, its device, and where it can be reached."""

    name: str
    module: str
    device: str
    endpoint: str
    """Where it binds the link, for instance ``ipc:///run/asr/worker-0``: metrics take the socket's name for its own."""
    metrics_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServePlan:
    """All that ``asr serve`` was told, after flags, environment and file."""

    config: str
    host: str
    port: int
    workers: tuple[WorkerPlace, ...]
    model: str | None = None
    """``fake`` or None: the configured one."""
    common_flags: tuple[str, ...] = ()
    """Given to every process."""


def worker_devices(*, device: str, n_gpus: int, n_workers: int | None) -> list[str]:
    """Return the device of each worker of one module.

    Args:
        device: ``auto`` takes the GPUs if there are any; ``cuda`` insists on them; ``cpu`` and ``cuda:N`` are taken
            as they are.
        n_gpus: GPUs that this process may use.
        n_workers: how many workers; None means one for each GPU, or one on CPU.
    """
    if device == "auto":
        device = "cuda" if n_gpus else "cpu"
    # Without a GPU in sight, cuda is passed on as it is: the worker can say best what it misses.
    devices = [f"cuda:{index}" for index in range(n_gpus)] if device == "cuda" and n_gpus else [device]
    count = len(devices) if n_workers is None else n_workers
    return [devices[index % len(devices)] for index in range(count)]


def place_workers(
    *, modules: Sequence[str], devices: Sequence[str], endpoints: Sequence[str], metrics_ports: Sequence[int]
) -> tuple[WorkerPlace, ...]:
    """Give each module one worker for each entry of ``devices``.

    ``endpoints`` and ``metrics_ports`` hold one entry for each worker of all modules together.
    """
    wanted = [(module, device) for module in modules for device in devices]
    return tuple(
        WorkerPlace(name=name_of(index), module=module, device=device, endpoint=endpoint, metrics_port=port)
        for index, ((module, device), endpoint, port) in enumerate(zip(wanted, endpoints, metrics_ports, strict=True))
    )


def name_of(index: int) -> str:
    """Return the name of a worker, counted over all modules: in logs, in metrics, and of its Unix socket."""
    return f"worker-{index}"


def worker_arguments(plan: ServePlan, worker: WorkerPlace) -> list[str]:
    """Return the arguments of ``asr-worker``."""
    # One word for the module: its name may begin as a flag does.
    arguments = ["--config", plan.config, f"--module={worker.module}", "--bind", worker.endpoint]
    arguments += ["--device", worker.device, "--metrics-port", str(worker.metrics_port)]
    # Whatever the environment says of workers that run alone: the gateway looks for the metrics there.
    arguments += ["--metrics-host", "127.0.0.1", "--no-measure-only"]
    if plan.model is not None:
        arguments += ["--model", plan.model]
    return [*arguments, *plan.common_flags]


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the processes get of ``environ``: all but what one worker that runs alone is told there.

    No flag takes it back: each of several workers would write its endpoint over that of the others.
    """
    return {name: value for name, value in environ.items() if name != _OF_ONE_WORKER}


def gateway_arguments(plan: ServePlan) -> list[str]:
    """Return the arguments of ``asr-gateway``."""
    arguments = ["--config", plan.config, "--host", plan.host, "--port", str(plan.port)]
    for worker in plan.workers:
        url = f"http://127.0.0.1:{worker.metrics_port}/metrics"
        arguments += ["--worker", worker.endpoint, "--scrape", f"{worker.name}={url}"]
    return [*arguments, *plan.common_flags]
