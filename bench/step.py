"""Milliseconds for one model step, beside the published packages and the computed floor, in one run.

    python -m bench.step [--sizes demo full] [--batches 1 8 32] [--reference-python PATH]

Engines take turns of a few steps on the same core, so that other work on the machine hits all alike: trust the ratios,
and CPU time before wall time; ``of_moshi_p10`` and ``of_moshi_p90`` are the spread of the ratio over these turns.
``--reference-python`` names an interpreter whose environment has ``moshi`` (and perhaps ``rustymimi``); without it only
our own model is measured. ``--active`` measures whether cost follows the active rows.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.engines.process import ROOT, EngineProcess, Spec, Times
from bench.floor import Machine, measure_machine, work_of
from bench.report import Report, median, quantile
from bench.sizes import NAMES, Size, prepare

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
KV_BYTES = {"model": None, "bf16": 2, "int8": 1, "fp8": 1}
WEIGHT_BYTES = {"f32": None, "bf16": 2, "int8": 1}
TARGETS = {1: 0.5, 8: 0.5, 32: 0.75}
"""Of the reference's time, full step on CPU in exact float32 (issue 4)."""
LIMIT = "weights and visible KV are read once for each step, products in float32 run at the core's peak"


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    options = parse(arguments)
    report = Report(
        "step", LIMIT, {k: str(v) for k, v in vars(options).items() if k not in {"reference_python", "weights"}}
    )
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    machines = {dtype: measure_machine(device, DTYPES[dtype]) for dtype in options.dtypes}
    report.note(floor_machine={dtype: asdict(machine) for dtype, machine in machines.items()})
    engines = open_engines(options)
    for engine in engines:
        report.note(**{f"{engine.name}_versions": engine.versions})
    rows: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.weights or Path(scratch)
            for name in options.sizes:
                size = prepare(name, folder)
                for spec in specs_of(size, options):
                    rows += measure(size, spec, engines, machines[spec.dtype], options)
    finally:
        for engine in engines:
            engine.close()
    report.table(rows)
    report.finish(keep=options.keep, label=options.label)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=NAMES, default=["demo", "full"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--active", nargs="+", type=int, help="rows that step, of the one batch size; default: all")
    parser.add_argument("--fills", nargs="+", type=float, default=[1.0], help="visible share of the rings")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["f32"])
    parser.add_argument("--kv-caches", nargs="+", choices=KV_BYTES, default=["model"], help="of ours")
    parser.add_argument("--cpu-weights", nargs="+", choices=WEIGHT_BYTES, default=["f32"], help="of ours, on CPU")
    parser.add_argument("--attention", choices=["auto", "torch"], default="auto", help="of ours, on CUDA")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--core", type=int, help="pin the engines to this core")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each engine")
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--reference-python", help="an interpreter that can import moshi")
    parser.add_argument("--weights", type=Path, help="where seeded weights are kept; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    parser.add_argument("--label", default="", help="of the kept result, to tell several of a day apart")
    options = parser.parse_args(arguments)
    if options.cpu_weights != ["f32"] and (options.device != "cpu" or options.dtypes != ["f32"]):
        parser.error("--cpu-weights: other formats than f32 are for --device cpu --dtypes f32")
    return options


def open_engines(options: argparse.Namespace) -> list[EngineProcess]:
    """Start a process for each engine that this machine has."""
    engines = [EngineProcess("ours", "bench.engines.ours", core=options.core)]
    python = options.reference_python
    if python:
        engines.append(EngineProcess("moshi", "bench.engines.moshi", python=python, core=options.core))
        if can_import(python, "rustymimi"):
            engines.append(EngineProcess("rustymimi", "bench.engines.rusty", python=python, core=options.core))
    return engines


def can_import(python: str, module: str) -> bool:
    """Return whether an interpreter has a module."""
    command = [python, "-c", f"import {module}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def specs_of(size: Size, options: argparse.Namespace) -> list[Spec]:
    """Return every combination that was asked for."""
    return [
        Spec(
            **size.spec_fields(),
            batch=batch,
            active=active,
            fill=fill,
            dtype=dtype,
            device=options.device,
            threads=options.threads,
            kv_cache=None if kv_cache == "model" else kv_cache,
            cpu_weights=cpu_weights,
            attention=options.attention,
        )
        for cpu_weights in options.cpu_weights
        for kv_cache in options.kv_caches
        for dtype in options.dtypes
        for fill in options.fills
        for batch in options.batches
        for active in (options.active or [batch])
    ]


def measure(
    size: Size, spec: Spec, engines: list[EngineProcess], machine: Machine, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row for each engine that can step the spec."""
    running = [engine for engine in engines if can_step(engine.name, size, spec)]
    times = {engine.name: Times() for engine in running}
    turns: dict[str, list[float]] = {engine.name: [] for engine in running}
    for engine in running:
        engine.start(spec)
        engine.run(2)
    for _ in range(options.rounds):
        for engine in running:
            turn = engine.run(options.steps)
            times[engine.name].extend(turn)
            turns[engine.name].append(median(turn.cpu_ms if spec.device == "cpu" else turn.wall_ms))
    dtype = DTYPES[spec.dtype]
    kv_bytes = KV_BYTES[spec.kv_cache or "model"] or dtype.itemsize
    work = work_of(
        size,
        active=spec.active,
        fill=spec.fill,
        dtype=dtype,
        kv_bytes=kv_bytes,
        lm_bytes=WEIGHT_BYTES[spec.cpu_weights],
    )
    floor_ms = work.floor_ms(machine)
    reference = times.get("moshi")
    rows = []
    for name, taken in times.items():
        cpu_ms, wall_ms = median(taken.cpu_ms), median(taken.wall_ms)
        # A GPU works while the process sleeps.
        own_ms = cpu_ms if spec.device == "cpu" else wall_ms
        share = own_ms / median(reference.cpu_ms if spec.device == "cpu" else reference.wall_ms) if reference else None
        shares = [own / others for own, others in zip(turns[name], turns.get("moshi", ()), strict=False)]
        rows.append(
            {
                "size": size.name,
                "engine": name + (" (encode only)" if name == "rustymimi" else ""),
                "dtype": spec.dtype,
                "kv_cache": spec.kv_cache or spec.dtype,
                "weights": spec.dtype if spec.cpu_weights == "f32" else spec.cpu_weights,
                "batch": spec.batch,
                "active": spec.active,
                "fill": spec.fill,
                "cpu_ms": cpu_ms,
                "wall_ms": wall_ms,
                "wall_p90_ms": quantile(taken.wall_ms, 0.9),
                "wall_p99_ms": quantile(taken.wall_ms, 0.99),
                "floor_ms": floor_ms,
                "over_floor": own_ms / floor_ms,
                "of_moshi": share,
                "of_moshi_p10": quantile(shares, 0.1) if shares else None,
                "of_moshi_p90": quantile(shares, 0.9) if shares else None,
                "target": TARGETS.get(spec.batch) if name == "ours" and is_exact(spec) else None,
            }
        )
        sys.stderr.write(f"{size.name} B={spec.batch} active={spec.active} {name}: {own_ms:.2f} ms\n")
    return rows


def is_exact(spec: Spec) -> bool:
    """Return whether all numbers are float32."""
    return spec.dtype == "f32" and spec.kv_cache is None and spec.cpu_weights == "f32"


def can_step(engine: str, size: Size, spec: Spec) -> bool:
    """Return whether an engine knows such a model: rustymimi has the published size only, and no rows that rest."""
    if engine == "moshi" and (spec.kv_cache is not None or spec.cpu_weights != "f32"):
        return False
    return engine != "rustymimi" or (size.name == "full" and spec.active == spec.batch and spec.device == "cpu")


if __name__ == "__main__":
    sys.exit(main())
