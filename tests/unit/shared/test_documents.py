"""What is written against the code: every setting stands there, and nothing that is not."""

import dataclasses
import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import asr_gateway
from asr_gateway.config import read_settings as read_gateway_settings
from asr_gateway.io.discovery import worker_source
from asr_gateway.metrics import GatewayMetrics
from asr_worker.config import read_settings as read_worker_settings
from asr_worker.metrics import WorkerMetrics
from shared.config import GatewayConfig, WorkerConfig
from shared.errors import AsrError, CheckpointError, ClientGoneError, ConfigError, LinkError, ModelFaultError

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "deploy" / "README.md"]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
TEXT = "\n".join(page.read_text() for page in [*PAGES, ROOT / "deploy" / "alerts.yml"])


@pytest.mark.parametrize(("table", "section"), [("gateway", GatewayConfig), ("worker", WorkerConfig)])
def test_every_setting_is_listed_and_no_other(table: str, section: Any) -> None:
    _, rows = TEXT.split(f"| `[{table}]` |")
    first_cells = [row.split("|")[1] for row in rows.split("\n\n")[0].splitlines()[1:]]
    listed = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(section))


def test_only_files_that_there_are_are_named() -> None:
    named = re.findall(r"`((?:asr_gateway|asr_worker|asr_cli|shared|tests|training|bench|deploy|docs)/[\w/.]*)`", TEXT)
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert len(named) > 10


def test_the_sections_that_the_code_cites_are_there() -> None:
    there = re.findall(r"^##+ ([\d.]*\d)", (ROOT / "docs" / "model.md").read_text(), re.MULTILINE)
    packages = [path for name in ("asr_worker", "training", "tests") for path in (ROOT / name).rglob("*.py")]
    cited = re.findall(
        r"model\.md, sections? ([\d.]+\d|\d)(?: and (\d[\d.]*\d|\d))?", "".join(p.read_text() for p in packages)
    )
    numbers = [number for pair in cited for number in pair if number]
    assert [number for number in numbers if number not in there] == []
    assert len(numbers) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_there_are(page: Path) -> None:
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    assert [target for target in targets if not (page.parent / target).exists()] == []
    assert targets


def test_only_metrics_that_there_are_are_named() -> None:
    gateway, worker = GatewayMetrics(), WorkerMetrics()
    gateway.audio_received(1.0, key="a0bac625")
    gateway.worker_lost("tcp://127.0.0.1:9")
    exported = set(re.findall(r"# TYPE (\w+)", (gateway.render() + worker.render()).decode()))
    named = set(re.findall(r"\b(asr_(?:gateway|worker)_\w*[a-z])\b(?![/.])", TEXT)) - {"asr_gateway", "asr_worker"}
    assert named - exported == {"asr_worker_start_step_seconds"}  # once the steps were timed
    assert len(named) > 5


NOT_FOR_CLIENTS = {ConfigError, CheckpointError, LinkError, ModelFaultError, ClientGoneError}


def _kinds_of(error: type[AsrError]) -> Iterator[type[AsrError]]:
    yield error
    for kind in error.__subclasses__():
        yield from _kinds_of(kind)


def _seen_by_clients() -> set[type[AsrError]]:
    for module in pkgutil.walk_packages(asr_gateway.__path__, "asr_gateway."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = {kind for kind in _kinds_of(AsrError) if kind.__module__.startswith(("shared.", "asr_gateway."))}
    return ours - NOT_FOR_CLIENTS


def test_every_error_that_a_client_can_see_is_listed_as_it_is_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{4}|-) \| (\d{3}|-) \| (yes|no) \|", TEXT, re.MULTILINE)
    listed = {code: facts for code, *facts in rows}

    assert sorted(code for code, *_ in rows) == sorted(kind.code for kind in _seen_by_clients())
    for kind in _seen_by_clients():
        close_code, status, again = listed[kind.code]
        assert close_code in (str(kind.close_code), "-"), kind
        assert status in (str(kind.http_status), "-"), kind
        assert again == ("yes" if kind.retry else "no"), kind


def test_images_hold_every_package_and_run_every_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sent = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert [name for name in sent if not (ROOT / name).exists()] == []
    assert {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]} <= sent
    assert set(re.findall(r'ENTRYPOINT \["(.+)"\]', DOCKERFILE)) == set(project["project"]["scripts"])


def test_the_composed_gateway_finds_its_worker_and_both_may_drain() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    gateway = read_gateway_settings(flags(services["gateway"]), image_environment("gateway"))
    worker = read_worker_settings(flags(services["worker"]), image_environment("worker"))
    assert (gateway.gateway.host, gateway.gateway.port) == ("0.0.0.0", 8080)
    assert gateway.sources == (worker_source(worker.bind.replace("0.0.0.0", "worker")),)
    assert gateway.scrape == {"worker": f"http://worker:{worker.metrics_port}/metrics"}
    assert gateway.warnings == worker.warnings == ()
    assert int(services["gateway"]["stop_grace_period"].rstrip("s")) > gateway.gateway.drain_s
    assert int(services["worker"]["stop_grace_period"].rstrip("s")) > worker.worker.drain_s


def flags(service: dict[str, Any]) -> list[str]:
    """Return the command of a service, with the folder that is mounted unless another is asked for."""
    return [
        word.replace("/etc/asr/${CONFIG:-demo.toml}", str(ROOT / "asr_worker" / "demo" / "demo.toml"))
        for word in service["command"].split()
    ]


def image_environment(target: str) -> dict[str, str]:
    """Return the variables that the last stage of an image sets."""
    _, stage = DOCKERFILE.split(f" AS {target}\n")
    lines = re.findall(r"^ENV (.+)$", stage.partition("\nFROM ")[0], re.MULTILINE)
    return dict(word.split("=", 1) for line in lines for word in line.split())
