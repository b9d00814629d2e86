"""What a gateway says about itself: build, modules, metrics, health."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from asr_gateway.core.modules import ServedModule
from asr_gateway.io.dispatch import Dispatch
from asr_gateway.io.http import build_info
from asr_gateway.io.scraper import Scraper
from asr_gateway.metrics import GatewayMetrics
from shared.exposition import CONTENT_TYPE, merge

MODULE_TYPE: Final = "batched_asr"


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
        self._scraper = Scraper(scrape)

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
        texts = await self._scraper.texts()
        return web.Response(body=merge(self._metrics.render(), texts), headers={"Content-Type": CONTENT_TYPE})
