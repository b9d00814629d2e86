"""The README against the code: every setting stands there, and nothing that is not."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from asr_gateway.metrics import GatewayMetrics
from asr_worker.metrics import WorkerMetrics
from shared.config import GatewayConfig, WorkerConfig

README = (Path(__file__).parents[3] / "README.md").read_text()


@pytest.mark.parametrize(("table", "section"), [("gateway", GatewayConfig), ("worker", WorkerConfig)])
def test_the_readme_lists_every_setting_and_no_other(table: str, section: Any) -> None:
    _, rows = README.split(f"| `[{table}]` |")
    first_cells = [row.split("|")[1] for row in rows.split("\n\n")[0].splitlines()[1:]]
    listed = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(section))


def test_the_readme_names_only_files_that_there_are() -> None:
    root = Path(__file__).parents[3]
    named = re.findall(r"`((?:asr_gateway|asr_worker|asr_cli|shared|tests|training|bench)/[\w/.]*)`", README)
    assert [name for name in named if not (root / name).exists()] == []
    assert len(named) > 10


def test_the_readme_names_only_metrics_that_there_are() -> None:
    gateway, worker = GatewayMetrics(), WorkerMetrics()
    gateway.audio_received(1.0, key="a0bac625")
    gateway.worker_lost("tcp://127.0.0.1:9")
    exported = set(re.findall(r"# TYPE (\w+)", (gateway.render() + worker.render()).decode()))
    named = set(re.findall(r"\b(asr_(?:gateway|worker)_\w*[a-z])\b(?![/.])", README)) - {"asr_gateway", "asr_worker"}
    assert named - exported == {"asr_worker_start_step_seconds"}  # once the steps were timed
    assert len(named) > 5
