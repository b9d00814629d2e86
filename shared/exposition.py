"""Prometheus' text format, written the way moshi-server writes it, so that its dashboards read ours.

    prometheus_client's families --render--> text        gateway's text + workers' texts --merge--> one text

prometheus_client's own text differs: counters end in ``_total``, each gets a ``_created`` series, 3 is written 3.0 and
so ``le="2"`` is ``le="2.0"``, which is another series. Families are sorted by name, as Rust's registry sorts them.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4"

COUNTERS_WITHOUT_TOTAL: Final = frozenset({"asr_connect"})
"""moshi-server's counters, whose names end as they are."""

SERVICE_WIDE: Final = frozenset({
    "asr_connect", "asr_connection_num_steps", "asr_model_step_duration", "asr_open_channels",
})  # fmt: skip
"""moshi-server's names: it was one process, so ours are added up over processes instead of told apart."""

_COMMENT: Final = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) ?(.*)")
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and its labels, escaped as in the text."""


@dataclass(slots=True, kw_only=True)
class Family:
    """One metric: its samples by name and labels, in the order in which they are written."""

    help: str = ""
    kind: str = "untyped"
    samples: dict[Series, float] = field(default_factory=dict)


def render(metrics: Iterable[Any]) -> bytes:
    """Return the text of prometheus_client's ``metrics`` (what ``CollectorRegistry.collect`` yields)."""
    families: dict[str, Family] = {}
    for metric in metrics:
        bare = metric.type == "counter" and metric.name in COUNTERS_WITHOUT_TOTAL
        name = metric.name + ("_total" if metric.type == "counter" and not bare else "")
        family = Family(help=_escaped(metric.documentation, quotes=False), kind=metric.type)
        # Rust's library writes a histogram's sum before its count.
        for sample in sorted(metric.samples, key=lambda one: one.name == f"{metric.name}_count"):
            if sample.name.endswith("_created"):
                continue
            labels = tuple((key, _escaped(_label_value(key, value))) for key, value in sample.labels.items())
            family.samples[metric.name if bare else sample.name, labels] = sample.value
        families[name] = family
    return text_of(families)


def merge(own: bytes, others: Mapping[str, bytes], *, label: str = "worker") -> bytes:
    """Return one text of the gateway's ``own`` and those of the workers, by name.

    moshi-server's series are added up (of histograms only the buckets that all have); every other series of a worker
    gets ``label`` with its name. Lines that are no samples are dropped: a stranger's answer must not hide our numbers.
    """
    families = parse(own)
    parts: dict[str, list[Family]] = {name: [family] for name, family in families.items() if name in SERVICE_WIDE}
    for worker, text in others.items():
        for name, family in parse(text).items():
            if name in SERVICE_WIDE:
                parts.setdefault(name, []).append(family)
                continue
            into = families.setdefault(name, Family(help=family.help, kind=family.kind))
            for (sample, labels), value in family.samples.items():
                into.samples[sample, ((label, _escaped(worker)), *labels)] = value
    families |= {name: summed(of_name) for name, of_name in parts.items()}
    return text_of(families)


def summed(parts: list[Family]) -> Family:
    """Return the sum of one family's ``parts``; of histograms only the buckets that all have."""
    # Cumulative buckets stay true when some are left out, not when one process's are missing from a sum.
    shared = set.intersection(*(set(part.samples) for part in parts))
    total = Family(help=parts[0].help, kind=parts[0].kind)
    for part in parts:
        for series, value in part.samples.items():
            if series in shared or part.kind != "histogram":
                total.samples[series] = total.samples.get(series, 0.0) + value
    return total


def parse(text: bytes) -> dict[str, Family]:
    """Return the families that ``text`` holds, by name; lines that are no samples are dropped."""
    families: dict[str, Family] = {}
    current = ""
    for line in text.decode("utf-8", "replace").split("\n"):
        if comment := _COMMENT.fullmatch(line):
            what, current, rest = comment.groups()
            family = families.setdefault(current, Family())
            if what == "HELP":
                family.help = rest
            else:
                family.kind = rest
        elif (sample := _SAMPLE.fullmatch(line)) and sample[1].startswith(current) and current:
            value = _number(sample[3])
            if value is not None:
                families[current].samples[sample[1], tuple(_LABEL.findall(sample[2] or ""))] = value
    return families


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def text_of(families: Mapping[str, Family]) -> bytes:
    """Return ``families`` as text."""
    return "".join(f"{line}\n" for line in _lines(families)).encode()


def _lines(families: Mapping[str, Family]) -> Iterator[str]:
    for name, family in sorted(families.items()):
        if not family.samples:
            continue
        yield f"# HELP {name} {family.help}"
        yield f"# TYPE {name} {family.kind}"
        for (sample, labels), value in family.samples.items():
            inside = ",".join(f'{key}="{text}"' for key, text in labels)
            yield f"{sample}{{{inside}}} {_written(value)}" if inside else f"{sample} {_written(value)}"


def _label_value(key: str, value: str) -> str:
    return _written(float(value)) if key == "le" else value


def _written(value: float) -> str:
    """Return ``value`` as Rust writes it: 3, 0.02, 0.00001, +Inf."""
    if not math.isfinite(value):
        return {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
    return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text
