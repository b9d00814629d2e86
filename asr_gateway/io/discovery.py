"""Which workers there are: given by endpoint, by a name in the DNS, or by the lines of a file.

    --worker tcp://HOST:PORT   ipc://PATH     one worker; a HOST that is a name is looked up again and again
    --discover dns://NAME:PORT                one worker for each address of NAME
    --discover file://PATH                    one endpoint for each line; empty lines and # comments are skipped

Discovery only adds. A worker that is not named any more is forgotten once it has fallen silent by itself: a broken
resolver or an empty file must not cut a single live stream.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog

from asr_gateway.io.names import addresses_of
from asr_gateway.io.threads import in_thread
from shared.errors import ConfigError
from shared.log_events import DISCOVERY_FAILED

LOOK_UP_EVERY_S: Final = 2.0
LOOK_UP_WITHIN_S: Final = 5.0
MAX_FILE_BYTES: Final = 1 << 20

_ENDPOINT: Final = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})|ipc://\S+")
_DNS: Final = re.compile(r"dns://(?P<host>[^\s:/]+):(?P<port>\d{1,5})")
_FILE: Final = "file://"

_Answer = TypeVar("_Answer")


class Roster(Protocol):
    """Who is told of workers."""

    def add_worker(self, endpoint: str) -> None:
        """A worker is named."""
        ...

    def remove_worker(self, endpoint: str) -> bool:
        """A worker is not named any more; return whether it is forgotten, which it is not while it is alive."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """An endpoint that needs no looking up."""

    endpoint: str

    async def endpoints(self) -> set[str]:
        """Return it."""
        return {self.endpoint}


@dataclass(frozen=True, slots=True)
class Named:
    """A host name; ``every_address`` stands for many workers, else its first address is one worker."""

    host: str
    port: int
    every_address: bool

    def __str__(self) -> str:
        return f"{'dns' if self.every_address else 'tcp'}://{self.host}:{self.port}"

    async def endpoints(self) -> set[str]:
        """Return the endpoints at the addresses that the resolver gives now.

        Raises:
            OSError: it gives none, or there is no thread to ask it in.
            UnicodeError: the name can be none: it has two dots in a row, or more than 63 characters without one.
        """
        # The resolver shuffles: sorted, one worker stays one worker.
        addresses = sorted(await addresses_of(self.host, self.port))
        return {_tcp(address, self.port) for address in (addresses if self.every_address else addresses[:1])}


@dataclass(frozen=True, slots=True)
class Listed:
    """A file with one endpoint in each line."""

    path: Path

    def __str__(self) -> str:
        return f"file://{self.path}"

    async def sources(self) -> list[Fixed | Named]:
        """Return what the lines of the file name.

        Raises:
            OSError: the file cannot be read, or there is no thread to read it in.
            ConfigError: a line is no endpoint; nothing of such a file is believed.
        """
        text = await in_thread(self._read)
        lines = [line.split("#")[0].strip() for line in text.splitlines()]
        return [worker_source(line) for line in lines if line]

    def _read(self) -> str:
        with self.path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")


Source = Fixed | Named | Listed


def worker_source(endpoint: str) -> Fixed | Named:
    """Return the source that ``--worker`` names.

    Raises:
        ConfigError: it is no endpoint.
    """
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not _is_port(match["port"]):
        message = f"worker {endpoint!r}: must be tcp://HOST:PORT or ipc://PATH"
        raise ConfigError(message)
    if match["host"] is None:
        return Fixed(endpoint)
    try:
        address = ipaddress.ip_address(match["host"].strip("[]"))
    except ValueError:
        return Named(match["host"], int(match["port"]), every_address=False)
    return Fixed(_tcp(str(address), int(match["port"])))


def discovery_source(url: str) -> Named | Listed:
    """Return the source that ``--discover`` names.

    Raises:
        ConfigError: it is none that is known.
    """
    match = _DNS.fullmatch(url)
    if match is not None and _is_port(match["port"]):
        return Named(match["host"], int(match["port"]), every_address=True)
    if url.startswith(_FILE) and len(url) > len(_FILE):
        return Listed(Path(url.removeprefix(_FILE)))
    message = f"discover {url!r}: must be dns://NAME:PORT or file://PATH"
    raise ConfigError(message)


class Discovery:
    """Keeps a roster up to date with what the sources name."""

    def __init__(self, sources: Sequence[Source], roster: Roster) -> None:
        self._roster = roster
        self._sources = tuple(dict.fromkeys(sources))
        self._listed: dict[Listed, list[Fixed | Named]] = {}
        self._named: dict[Fixed | Named, set[str]] = {}
        self._known: set[str] = set()
        self._failing: set[Source] = set()
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Look up again and again until cancelled."""
        while True:
            await self.look_up()
            await asyncio.sleep(LOOK_UP_EVERY_S)

    async def look_up(self) -> None:
        """Ask every source once and tell the roster what has changed."""
        lists = await asyncio.gather(*[self._lines_of(source) for source in self._sources])
        # Each line of a file by itself: a host that has no address takes nothing from the others.
        names = list(dict.fromkeys(chain.from_iterable(lists)))
        found = await asyncio.gather(*[self._endpoints_of(name) for name in names])
        self._named = dict(zip(names, found, strict=True))
        self._failing.intersection_update((*self._sources, *names))
        current = set().union(*found)
        for endpoint in sorted(current):
            self._roster.add_worker(endpoint)
        still_alive = {endpoint for endpoint in self._known - current if not self._roster.remove_worker(endpoint)}
        self._known = current | still_alive

    async def _lines_of(self, source: Source) -> list[Fixed | Named]:
        if not isinstance(source, Listed):
            return [source]
        self._listed[source] = await self._ask(source, source.sources(), self._listed.get(source, []))
        return self._listed[source]

    async def _endpoints_of(self, name: Fixed | Named) -> set[str]:
        return await self._ask(name, name.endpoints(), self._named.get(name, set()))

    async def _ask(self, source: Source, question: Awaitable[_Answer], before: _Answer) -> _Answer:
        """Return what ``source`` says now; if it does not answer, what it said ``before``."""
        try:
            async with asyncio.timeout(LOOK_UP_WITHIN_S):
                answer = await question
        except (OSError, UnicodeError, ConfigError, TimeoutError) as error:
            if source not in self._failing:
                self._failing.add(source)
                self._log.warning(DISCOVERY_FAILED, source=str(source), reason=str(error) or type(error).__name__)
            return before
        self._failing.discard(source)
        return answer


def _is_port(text: str | None) -> bool:
    return text is None or 0 < int(text) < 1 << 16


def _tcp(address: str, port: int) -> str:
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"
