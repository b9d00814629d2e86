"""``asr doctor``: what this machine can do, and what it lacks."""

import argparse
import ctypes.util
import os
import platform
import shutil
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from asr_cli.capacity import memory_need
from asr_cli.output import printing, shown
from asr_cli.serve import demo_config
from asr_cli.speed import measure_speed, speed_line
from asr_cli.torch_probe import CudaDevice, TorchFacts, probe_torch
from asr_cli.validate import missing_files
from shared.config import ModuleConfig, WorkerConfig
from shared.config_file import load_config
from shared.errors import ConfigError
from shared.flavour import flavour
from shared.number_formats import F16_RISK, lm_number_format
from shared.settings import CONFIG, add_options, chosen, overridden, section_options

PACKAGES: Final = (
    *("aiohttp", "huggingface_hub", "msgpack", "numpy", "opuslib", "prometheus-client", "pyzmq", "safetensors"),
    *("sentencepiece", "soundfile", "soxr", "structlog", "uvloop"),
)
BYTES_PER_NUMBER: Final = {"f32": 4, "bf16": 2, "f16": 2}
GB: Final = 1e9


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "doctor",
        description="Say what this machine can do: libraries, device, number type, memory, how many slots of a "
        "configuration fit into it, and how many sessions it steps in time. The exit status is 1 if something that "
        "the service needs is missing or its models do not load.",
    )
    add_options(parser, [CONFIG])
    parser.add_argument(
        "--speed",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="load the models, if their files are on this machine, and time their steps (default: yes; some seconds)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line for each fact."""
    values = chosen(args, [CONFIG, *section_options(WorkerConfig, aliases={})], os.environ)
    config_path = Path(values["config"]) if "config" in values else demo_config()
    config = load_config(config_path, os.environ).service
    worker = overridden(config.worker, values)  # as the one that is timed takes them
    torch = probe_torch()
    missing = [*report_system(), *report_packages(), *report_torch(torch)]
    print_fact("gateway", flavour())
    for module in config.modules:
        for line in capacity_lines(module, () if worker.device == "cpu" else torch.devices, worker):
            print_fact(f"{config_path.name} [{module.name}]", line)
        if args.speed and torch.version is not None:
            missing += report_speed(module, config_path, config.source)
    for name in missing:
        print_fact("missing", name)
    return 1 if missing else 0


def print_fact(name: str, value: str) -> None:
    """Print one line of the report."""
    with printing():
        print(shown(f"{name + ':':<24} {value}"), flush=True)


def report_system() -> Iterator[str]:
    """Print what the machine is; yield what it lacks."""
    print_fact("python", f"{platform.python_version()} on {platform.platform()}")
    print_fact("processor", f"{os.cpu_count()} cores, {free_memory_bytes() / GB:.1f} GB of memory free")
    opus = ctypes.util.find_library("opus")
    print_fact("libopus", opus or "not found")
    if opus is None:
        yield "libopus, for OggOpus audio (Debian, Ubuntu: apt-get install libopus0)"
    print_fact("nvidia driver", shutil.which("nvidia-smi") or "none")


def free_memory_bytes() -> int:
    """Return how much memory programs can still take, file caches included where the kernel says."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def report_packages() -> Iterator[str]:
    """Print the versions of the libraries; yield those that are not installed."""
    for name in PACKAGES:
        try:
            print_fact(name, version(name))
        except PackageNotFoundError:
            print_fact(name, "not installed")
            yield f"the Python package {name}"


def report_torch(torch: TorchFacts) -> Iterator[str]:
    """Print what torch can use; yield it if it is not there."""
    if torch.version is None:
        print_fact("torch", f"does not work: {torch.trouble}")
        yield "torch, for workers"
        return
    print_fact("torch", torch.version)
    if not torch.devices:
        print_fact("device", f"cpu, language model in {lm_number_format(None)}")
    for index, device in enumerate(torch.devices):
        major, minor = device.capability
        memory = f"{device.free_bytes / GB:.1f} of {device.total_bytes / GB:.1f} GB free"
        dtype = lm_number_format(device.capability)
        print_fact(f"cuda:{index}", f"{device.name}, compute capability {major}.{minor}, {memory}, {dtype}")
    if torch.devices:
        print_fact("attention kernel", kernel_line())


def report_speed(module: ModuleConfig, config_path: Path, source: Path) -> Iterator[str]:
    """Print how many sessions are stepped in time; yield the module if its files are here and do not load.

    Files that are not here are no fault: a worker downloads them.
    """
    name = f"{config_path.name} [{module.name}]"
    try:
        absent = missing_files(module, source)
    except ConfigError as error:  # huggingface_hub is not installed: the report of packages has said so
        absent = list(error.problems)
    if absent:
        for problem in absent:
            print_fact(name, f"speed not measured: {problem}")
        return
    found = measure_speed(config_path, module.name)
    if isinstance(found, dict):
        print_fact(name, speed_line(found))
        return
    for reason in found:
        print_fact(name, f"speed not measured: {reason}")
    yield f"a worker that starts with {name}"


def kernel_line() -> str:
    """Say whether Triton finds what it compiles the attention's kernel with; workers go on without."""
    lacks = [] if any(map(shutil.which, ("cc", "gcc", "clang"))) else ["a C compiler (gcc)"]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        lacks.append("Python's headers (python3-dev)")
    return f"lacks {' and '.join(lacks)}: torch's slower attention runs" if lacks else "can be compiled"


def capacity_lines(module: ModuleConfig, devices: tuple[CudaDevice, ...], worker: WorkerConfig) -> Iterator[str]:
    """Yield how many slots of ``module`` fit, on each GPU or on the CPU, and what is risky about its numbers there.

    Memory only: speed is another matter.
    """
    places = [(f"cuda:{i}", device.free_bytes, lm_number_format(device.capability)) for i, device in enumerate(devices)]
    for place, free_bytes, default_dtype in places or [("cpu", free_memory_bytes(), lm_number_format(None))]:
        dtype = module.dtype_override or default_dtype
        formats = [dtype]
        if not devices and dtype == "f32" and worker.cpu_weights != "f32":
            is_auto = worker.cpu_weights == "auto"
            formats.append("weights perhaps in fewer bits" if is_auto else f"weights in {worker.cpu_weights}")
        if worker.kv_cache:
            formats.append(f"caches in {worker.kv_cache}")
        need = memory_need(
            module,
            lm_bytes_per_number=BYTES_PER_NUMBER[dtype],
            on_gpu=bool(devices),
            kv_cache=worker.kv_cache,
            cpu_weights=worker.cpu_weights,
        )
        loading = f", {need.while_loading / GB:.2f} while they are loaded" if need.while_loading > need.weights else ""
        yield (
            f"{need.slots_that_fit(free_bytes)} slots would fit into the memory of {place} (batch_size is "
            f"{module.batch_size}; weights {need.weights / GB:.2f} GB{loading}, {need.per_slot / 1e6:.1f} MB for each "
            f"slot, {', '.join(formats)})"
        )
        if dtype == "f16":
            yield F16_RISK
        if not devices and dtype != "f32" and worker.cpu_weights != "f32":
            yield f"no worker will start: cpu_weights = {worker.cpu_weights!r} wants float32, dtype_override is {dtype}"
