"""Draw the newest step result: milliseconds against batch size, ours, the published packages, the floor.

python -m bench.plot [bench/results/2026-01-01-step.json]       writes a .svg beside it; needs matplotlib
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench.report import RESULTS

STEP_BUDGET_MS = 80.0
COLOURS = {"ours": "#0b6e4f", "moshi": "#b3541e", "rustymimi (encode only)": "#7a6f9b"}


def main(arguments: list[str] | None = None) -> int:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", nargs="?", type=Path)
    options = parser.parse_args(arguments)
    try:
        import matplotlib as mpl  # noqa: PLC0415  (nothing else here needs it)
    except ImportError:
        sys.stderr.write("matplotlib is not installed: pip install -e '.[plots]'\n")
        return 1
    mpl.use("svg")
    path = options.result or newest()
    draw(json.loads(path.read_text()), path.with_suffix(".svg"))
    print(path.with_suffix(".svg"))
    return 0


def newest() -> Path:
    """Return the newest result of ``bench.step``.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(RESULTS.glob("*-step.json"))
    if not found:
        message = f"no step result in {RESULTS}: run python -m bench.step --keep"
        raise FileNotFoundError(message)
    return found[-1]


def draw(result: dict[str, Any], target: Path) -> None:
    """Write one panel for each size that has several batch sizes."""
    from matplotlib import pyplot as plt  # noqa: PLC0415  (nothing else here needs it)

    rows = [row for row in result["rows"] if row["active"] == row["batch"] and row["fill"] == 1.0]
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    figure, panels = plt.subplots(1, len(sizes), figsize=(5 * len(sizes), 4), squeeze=False)
    for panel, size in zip(panels[0], sizes, strict=True):
        here = [row for row in rows if row["size"] == size]
        for engine in dict.fromkeys(row["engine"] for row in here):
            line = [row for row in here if row["engine"] == engine]
            batches = [row["batch"] for row in line]
            panel.plot(batches, [row["cpu_ms"] for row in line], "o-", label=engine, color=COLOURS.get(engine))
        ours = [row for row in here if row["engine"] == "ours"]
        panel.plot([row["batch"] for row in ours], [row["floor_ms"] for row in ours], "k:", label="computed floor")
        panel.axhline(STEP_BUDGET_MS, color="grey", linewidth=0.8)
        panel.text(1, STEP_BUDGET_MS * 1.05, "80 ms: real time", color="grey", fontsize=8)
        panel.set(xscale="log", yscale="log", xlabel="sessions in the batch", ylabel="CPU ms for one step", title=size)
        batches = [row["batch"] for row in ours]
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.minorticks_off()
        panel.legend(fontsize=8)
    machine = result["machine"]
    figure.suptitle(
        f"{result['date'][:10]}, {machine['cpu']}, 1 thread, float32, commit {result['commit']}", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    sys.exit(main())
