"""A server's own step times, from the histogram ``asr_model_step_duration`` of its ``/metrics``, if it shows one.

moshi-server and we use the same name. Its buckets end at 80 ms, ours go on; a quantile is interpolated within its
bucket, as Prometheus does, so it is exact only at a bucket's edge.
"""

import math
import urllib.error
import urllib.request
from collections.abc import Iterable

METRIC = "asr_model_step_duration_bucket"
TIMEOUT_S = 5.0

Buckets = dict[float, float]
"""Upper edge in seconds (infinity last) -> steps so far that took no longer."""


def step_buckets(urls: Iterable[str]) -> Buckets:
    """Return the histograms at ``urls`` summed; empty where nobody shows one."""
    total: Buckets = {}
    for url in urls:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                text = answer.read().decode("utf-8", "replace")
        except (OSError, urllib.error.HTTPError):
            continue
        for edge, count in read_buckets(text).items():
            total[edge] = total.get(edge, 0.0) + count
    return total


def read_buckets(text: str) -> Buckets:
    """Return the step histogram of a Prometheus text, its series summed."""
    buckets: Buckets = {}
    for line in text.splitlines():
        if line.startswith(METRIC) and 'le="' in line:
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
