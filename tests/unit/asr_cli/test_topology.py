import os
import resource
import socket
from pathlib import Path

import pytest

from asr_cli.__main__ import main
from asr_cli.gpus import visible_gpus
from asr_cli.private_folder import holds_sockets
from asr_cli.serve import free_ports, link_endpoints, link_warnings
from asr_cli.topology import (
    ServePlan,
    child_environment,
    gateway_arguments,
    name_of,
    place_workers,
    worker_arguments,
    worker_devices,
)
from asr_cli.usage import UsageError
from asr_worker.config import read_settings

DEMO = Path(__file__).parents[3] / "asr_worker" / "demo" / "demo.toml"

TWO_GPUS = (
    "GPU 0: NVIDIA H200 (UUID: GPU-1a)\n  MIG 1g.18gb Device 0: (UUID: MIG-2b)\nGPU 1: NVIDIA H200 (UUID: GPU-3c)\n"
)


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 2), ("", 0), ("0", 1), ("1,0", 2), ("-1", 0), ("0,7", 1), ("7,0", 0), ("GPU-1a", 1), ("nonsense", 0)],
)
def test_visible_gpus_follow_the_environment(visible: str | None, count: int) -> None:
    assert visible_gpus(TWO_GPUS, visible) == count


def test_a_machine_without_a_driver_has_no_gpu() -> None:
    assert visible_gpus("", None) == 0


@pytest.mark.parametrize(
    ("device", "n_gpus", "n_workers", "devices"),
    [
        ("auto", 0, None, ["cpu"]),
        ("auto", 2, None, ["cuda:0", "cuda:1"]),
        ("auto", 2, 3, ["cuda:0", "cuda:1", "cuda:0"]),
        ("auto", 2, 1, ["cuda:0"]),
        ("cpu", 2, None, ["cpu"]),
        ("cpu", 0, 2, ["cpu", "cpu"]),
        ("cuda", 0, None, ["cuda"]),
        ("cuda", 1, None, ["cuda:0"]),
        ("cuda:1", 2, None, ["cuda:1"]),
    ],
)
def test_workers_are_spread_over_the_devices(
    device: str, n_gpus: int, n_workers: int | None, devices: list[str]
) -> None:
    assert worker_devices(device=device, n_gpus=n_gpus, n_workers=n_workers) == devices


def test_each_module_has_workers_of_its_own() -> None:
    places = place_workers(
        modules=["fr", "en"],
        devices=["cuda:0", "cuda:1"],
        endpoints=["ipc:///a", "ipc:///b", "ipc:///c", "ipc:///d"],
        metrics_ports=[1, 2, 3, 4],
    )
    assert [(place.name, place.module, place.device, place.endpoint, place.metrics_port) for place in places] == [
        ("worker-0", "fr", "cuda:0", "ipc:///a", 1),
        ("worker-1", "fr", "cuda:1", "ipc:///b", 2),
        ("worker-2", "en", "cuda:0", "ipc:///c", 3),
        ("worker-3", "en", "cuda:1", "ipc:///d", 4),
    ]


def test_the_gateway_is_told_of_every_worker_and_its_metrics() -> None:
    plan = plan_of_two()
    assert gateway_arguments(plan) == [
        *("--config", "c.toml", "--host", "127.0.0.1", "--port", "8080"),
        *("--worker", "ipc:///a", "--scrape", "worker-0=http://127.0.0.1:1/metrics"),
        *("--worker", "ipc:///b", "--scrape", "worker-1=http://127.0.0.1:2/metrics"),
        *("--log", "debug"),
    ]


def test_a_worker_is_told_its_module_device_and_endpoint() -> None:
    plan = plan_of_two()
    assert worker_arguments(plan, plan.workers[1]) == [
        *("--config", "c.toml", "--module=asr", "--bind", "ipc:///b", "--device", "cpu", "--metrics-port", "2"),
        *("--metrics-host", "127.0.0.1", "--no-measure-only"),
        *("--model", "fake", "--log", "debug"),
    ]


def test_a_worker_is_told_its_module_whatever_its_name(tmp_path: Path) -> None:
    name = "-x"
    config = tmp_path / "c.toml"
    config.write_text(DEMO.read_text().replace("[modules.asr", f'[modules."{name}"'))
    places = place_workers(modules=[name], devices=["cpu"], endpoints=["ipc:///a"], metrics_ports=[1])
    plan = ServePlan(config=str(config), host="127.0.0.1", port=8080, workers=places)
    assert read_settings(worker_arguments(plan, places[0]), {}).module_name == name


def test_no_worker_of_several_writes_its_endpoint_over_that_of_the_others() -> None:
    environ = {"ASR_ANNOUNCE": "/run/endpoint", "ASR_THREADS": "2", "PATH": "/bin"}
    assert child_environment(environ) == {"ASR_THREADS": "2", "PATH": "/bin"}


def plan_of_two() -> ServePlan:
    return ServePlan(
        config="c.toml",
        host="127.0.0.1",
        port=8080,
        workers=place_workers(
            modules=["asr"], devices=["cpu", "cpu"], endpoints=["ipc:///a", "ipc:///b"], metrics_ports=[1, 2]
        ),
        model="fake",
        common_flags=("--log", "debug"),
    )


@pytest.mark.parametrize(
    ("folder", "endpoints"),
    [
        ("/tmp/asr-x", ["ipc:///tmp/asr-x/worker-0", "ipc:///tmp/asr-x/worker-1"]),
        ("/tmp/my files/asr-x", ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]),
        (f"/tmp/{'ü' * 60}/asr-x", ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]),
    ],
    ids=["a socket", "a blank", "too long"],
)
def test_the_link_is_a_port_where_a_folder_is_no_place_for_a_socket(folder: str, endpoints: list[str]) -> None:
    assert link_endpoints(folder, [1, 2]) == endpoints
    assert [folder in warning for warning in link_warnings(folder)] == [True] * endpoints[0].startswith("tcp://")


def test_whatever_the_name_of_the_folder_the_socket_of_any_worker_can_be_bound(tmp_path: Path) -> None:
    longest = next(f"{tmp_path}/{'x' * n}" for n in range(100, 0, -1) if holds_sockets(f"{tmp_path}/{'x' * n}"))
    Path(longest).mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{longest}/{name_of(99_999)}")


def test_more_ports_than_files_may_be_open_are_refused() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(UsageError, match="no 100 free ports, two for each worker: Too many open files"):
            free_ports(100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(set(free_ports(100))) == 100


def test_a_configuration_that_only_the_supervisor_could_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()  # as a shell's <(...) makes them
    os.write(writer, DEMO.read_bytes())
    os.close(writer)
    with socket.create_server(("127.0.0.1", 0)) as taken:  # in any case nothing is served
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", "fake", "--port", port, "--config", f"/dev/fd/{reader}"]) == 1
    os.close(reader)
    said = capsys.readouterr().err
    assert said.startswith(f"asr: /dev/fd/{reader}: is no file that stays; ")
