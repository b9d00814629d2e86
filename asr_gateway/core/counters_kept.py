"""Counts of a worker that go on while it does not answer, and after it began anew.

Under moshi-server's names the counts of all workers are added up (``shared/exposition.py``). A part that is missing, or
begins at 0 again, makes that sum fall. To Prometheus this is a restart of the whole service: ``rate()`` would take what
is left, the work of days perhaps, for the work of the last seconds.

    what it said      5   8   -   9   2   4       - no answer; 2: it began anew
    what is counted   5   8   8   9  11  13
"""

from typing import Final

from shared.exposition import SERVICE_WIDE, Family, parse, summed, text_of

_COUNTS: Final = frozenset({"counter", "histogram"})
"""Kinds that never fall. A gauge says how it is now: nothing of a worker that says nothing."""


class CountersKept:
    """What one worker, in all its incarnations, has counted under service-wide names. Feed it in order."""

    def __init__(self) -> None:
        self._last: dict[str, Family] = {}
        self._before: dict[str, Family] = {}
        """What the incarnations before the present one had counted when they were last heard."""

    def feed(self, text: bytes) -> bytes:
        """Return ``text``, the worker's metrics or nothing, with its service-wide counts as they have grown."""
        families = parse(text)
        for name, family in families.items():
            if name in SERVICE_WIDE and family.kind in _COUNTS:
                self._take(name, family)
        return text_of(families | {name: self._total(name, last) for name, last in self._last.items()})

    def _take(self, name: str, family: Family) -> None:
        last = self._last.get(name)
        if last is not None and _is_less(family, last):
            self._before[name] = self._total(name, last)
        self._last[name] = family

    def _total(self, name: str, last: Family) -> Family:
        before = self._before.get(name)
        return last if before is None else summed([before, last])


def _is_less(family: Family, last: Family) -> bool:
    return any(family.samples.get(series, value) < value for series, value in last.samples.items())
