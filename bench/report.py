"""How a benchmark speaks: the limit that it approaches, a table, one JSON line last, and a dated file of the same."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).parent / "results"
_PACKAGES: Final = ("torch", "numpy", "pyzmq", "aiohttp", "uvloop", "msgpack")


class Report:
    """One benchmark's output.

    Args:
        name: of the benchmark.
        limit: a sentence: which limit it approaches.
        parameters: as it was called.
    """

    def __init__(self, name: str, limit: str, parameters: dict[str, Any]) -> None:
        self._result: dict[str, Any] = {
            "bench": name,
            "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "limit": limit,
            "machine": machine(),
            "commit": commit(),
            "versions": versions(),
            "parameters": parameters,
            "rows": [],
        }
        print(f"{name}: {limit}\n")

    def note(self, **facts: Any) -> None:
        """Add facts beside the rows."""
        self._result |= facts
        for key, value in facts.items():
            print(f"  {key}: {value}")

    def table(self, rows: Sequence[dict[str, Any]]) -> None:
        """Print rows, all with the same keys, as a table, and keep them."""
        self._result["rows"] += rows
        if not rows:
            return
        heads = list(rows[0])
        cells = [heads, *([_cell(row[head]) for head in heads] for row in rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
        print()
        for line in cells:
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
        print()

    def finish(self, *, keep: bool, label: str = "") -> None:
        """Print the JSON line; ``keep`` also writes it to ``results/``, ``label`` tells several of a day apart."""
        self._result["load_average_at_end"] = os.getloadavg()[0]
        if keep:
            RESULTS.mkdir(exist_ok=True)
            name = "-".join(filter(None, (self._result["date"][:10], self._result["bench"], label)))
            path = RESULTS / f"{name}.json"
            path.write_text(json.dumps(self._result, indent=1) + "\n")
        sys.stdout.flush()
        print(json.dumps(self._result))


def machine() -> dict[str, Any]:
    """Return what the reader must know of this machine; other work on it is seen in the load average."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "load_average": os.getloadavg()[0], "system": platform.platform()}


def commit() -> str:
    """Return the commit that is checked out, ``+`` if files differ from it, or nothing outside a repository."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def versions() -> dict[str, str]:
    """Return the versions that decide speed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie; 0 without values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Return the median; 0 without values."""
    return statistics.median(values) if values else 0.0


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return "-" if value is None else str(value)
