"""What a gateway says about itself: build, modules, metrics, health."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
from aiohttp import web

from asr_gateway.core.modules import ServedModule
from asr_gateway.io.dispatch import Dispatch
from asr_gateway.io.http import build_info
from asr_gateway.io.names import Resolver
from asr_gateway.metrics import GatewayMetrics
from shared.exposition import CONTENT_TYPE, merge

MODULE_TYPE: Final = "batched_asr"
SCRAPE_WITHIN_S: Final = 1.0
MAX_SCRAPE_BYTES: Final = 4 << 20


class StatusRoutes:
    """The routes that need no key.

    Args:
        dispatch: what is asked.
        modules: what is served.
        metrics: this process's.
        scrape: URLs of the metrics of workers, which ``/metrics`` includes, by the label that they get.
    """

    def __init__(
        self, *, dispatch: Dispatch, modules: Sequence[ServedModule], metrics: GatewayMetrics, scrape: Mapping[str, str]
    ) -> None:
        self._dispatch = dispatch
        self._modules = modules
        self._metrics = metrics
        self._targets = scrape

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/api/build_info", self._build_info),
            web.get("/api/modules_info", self._modules_info),
            web.get("/metrics", self._metrics_text),
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
        ]

    async def _build_info(self, _: web.Request) -> web.Response:
        return web.json_response(build_info())

    async def _modules_info(self, _: web.Request) -> web.Response:
        return web.json_response([self._module_info(module) for module in self._modules])

    def _module_info(self, module: ServedModule) -> dict[str, Any]:
        load = self._dispatch.load_of(module.name)
        return {
            "type": MODULE_TYPE,
            "path": module.path,
            "lm": module.lm,
            "audio_tokenizer": module.audio_tokenizer,
            # Strings, as moshi-server has them.
            "used_slots": str(load.used_slots),
            "total_slots": str(load.total_slots),
            "name": module.name,
            "workers": load.n_workers,
        }

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, request: web.Request) -> web.Response:
        """Answer 200 if a worker of some module lives and takes sessions; of each that ``?module=NAME`` names, if any.

        A full service is ready: its refusal is an answer that clients understand, a load balancer's is not. Nor is one
        module without workers a reason to send nobody here for the others: it is named as missing.
        """
        loads = {module.name: self._dispatch.load_of(module.name) for module in self._modules}
        asked = request.query.getall("module", [])
        if unknown := [name for name in asked if name not in loads]:
            message = f"module={unknown[0]}: not served here; allowed: {', '.join(loads)}"
            return web.json_response({"error": message, "code": "unknown_module"}, status=404)
        missing = [name for name, load in loads.items() if not load.n_workers]
        is_served = not any(name in missing for name in asked) if asked else len(missing) < len(loads)
        is_ready = is_served and not self._dispatch.is_draining
        status = "ready" if is_ready else "draining" if self._dispatch.is_draining else "no worker is ready"
        facts = {name: {"workers": load.n_workers, "free_slots": load.free_slots} for name, load in loads.items()}
        answer = {"status": status, "missing": missing, "modules": facts}
        return web.json_response(answer, status=200 if is_ready else 503)

    async def _metrics_text(self, _: web.Request) -> web.Response:
        own = self._metrics.render()
        if self._targets:
            texts = await asyncio.gather(*[scraped(url) for url in self._targets.values()])
            own = merge(own, {name: text for name, text in zip(self._targets, texts, strict=True) if text})
        return web.Response(body=own, headers={"Content-Type": CONTENT_TYPE})


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
