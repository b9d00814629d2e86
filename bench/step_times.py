"""A server's own step times, from the histogram ``asr_model_step_duration`` of its ``/metrics``, if it shows one.

moshi-server and we use the same name. Its buckets end at 80 ms, ours go on; a quantile is interpolated within its
bucket, as Prometheus does, so it is exact only at a bucket's edge.
"""

import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator

METRIC = "asr_model_step_duration"
TIMEOUT_S = 5.0

Buckets = dict[float, float]
"""Upper edge in seconds (infinity last) -> steps so far that took no longer."""
Total = tuple[float, float]
"""Steps so far, and the seconds that they took together."""


def step_buckets(urls: Iterable[str]) -> Buckets:
    """Return the histograms at ``urls`` summed; empty where nobody shows one."""
    total: Buckets = {}
    for text in _texts(urls):
        for edge, count in read_buckets(text).items():
            total[edge] = total.get(edge, 0.0) + count
    return total


def step_total(urls: Iterable[str]) -> Total:
    """Return how many steps were made and how long they took, of all ``urls`` together."""
    totals = [read_total(text) for text in _texts(urls)]
    return sum(n_steps for n_steps, _ in totals), sum(took_s for _, took_s in totals)


def _texts(urls: Iterable[str]) -> Iterator[str]:
    for url in urls:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                yield answer.read().decode("utf-8", "replace")
        except (OSError, urllib.error.HTTPError):
            continue


def read_total(text: str) -> Total:
    """Return the histogram's count and sum in seconds, its series summed."""
    n_steps = took_s = 0.0
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        n_steps += float(value) if name.partition("{")[0] == f"{METRIC}_count" else 0.0
        took_s += float(value) if name.partition("{")[0] == f"{METRIC}_sum" else 0.0
    return n_steps, took_s


def mean_s(before: Total, after: Total) -> float | None:
    """Return how long a step between two readings took; None without steps."""
    n_steps = after[0] - before[0]
    return (after[1] - before[1]) / n_steps if n_steps > 0 else None


def read_buckets(text: str) -> Buckets:
    """Return the step histogram of a Prometheus text, its series summed."""
    buckets: Buckets = {}
    for line in text.splitlines():
        if line.startswith(f"{METRIC}_bucket") and 'le="' in line:
            edge = float(line.partition('le="')[2].partition('"')[0].replace("+Inf", "inf"))
            buckets[edge] = buckets.get(edge, 0.0) + float(line.rsplit(maxsplit=1)[1])
    return buckets


def quantile_s(before: Buckets, after: Buckets, share: float) -> float | None:
    """Return the step time below which ``share`` of the steps between two readings lay; None without steps.

    Beyond the last finite edge it is infinite: nothing more is known.
    """
    edges = sorted(after)
    counts = [after[edge] - before.get(edge, 0.0) for edge in edges]
    if not counts or counts[-1] <= 0:
        return None
    wanted = share * counts[-1]
    low_edge = low_count = 0.0
    for edge, count in zip(edges, counts, strict=True):
        if count >= wanted:
            if math.isinf(edge):
                return math.inf
            return low_edge + (edge - low_edge) * (wanted - low_count) / max(count - low_count, 1e-9)
        low_edge, low_count = edge, count
    return math.inf
