"""The metrics of the workers, which the gateway's ``/metrics`` includes."""

import asyncio
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp import web

from asr_gateway.core.counters_kept import CountersKept
from asr_gateway.io.names import Resolver

SCRAPE_WITHIN_S: Final = 1.0
MAX_SCRAPE_BYTES: Final = 4 << 20


class Scraper:
    """Asks ``targets``, URLs by the label that they get."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        self._targets = targets
        self._kept = {name: CountersKept() for name in targets}
        self._round: asyncio.Task[dict[str, bytes]] | None = None

    async def texts(self) -> dict[str, bytes]:
        """Return what each target says, by label; of one that does not answer what it had counted.

        One round at a time, which all who come meanwhile share: of two the older answer could come in last, and look
        as if its worker had begun anew.
        """
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._ask())
        return await asyncio.shield(self._round)

    async def _ask(self) -> dict[str, bytes]:
        texts = await asyncio.gather(*[scraped(url) for url in self._targets.values()])
        return {name: self._kept[name].feed(text) for name, text in zip(self._targets, texts, strict=True)}


async def scraped(url: str) -> bytes:
    """Return a worker's metrics, or nothing if it does not answer at once and in full: it may be dead or busy."""
    timeout = aiohttp.ClientTimeout(total=SCRAPE_WITHIN_S)
    try:
        connector = aiohttp.TCPConnector(resolver=Resolver())
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as client, client.get(url) as response:
            if response.status != web.HTTPOk.status_code:
                return b""
            await response.content.readexactly(MAX_SCRAPE_BYTES)
    except asyncio.IncompleteReadError as all_there_is:
        return all_there_is.partial
    except (aiohttp.ClientError, TimeoutError, UnicodeError):  # the last: a host that can be none, such as a..b
        pass
    return b""
