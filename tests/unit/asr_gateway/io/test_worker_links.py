from structlog.testing import capture_logs

from asr_gateway.io.worker_links import WorkerLinks
from asr_gateway.metrics import GatewayMetrics


class Nobody:
    """Is told nothing: no worker is ever reached."""

    def received(self, *_: object) -> None:
        raise AssertionError

    def link_lost(self, *_: object) -> None:
        raise AssertionError


async def test_an_endpoint_that_can_be_none_is_refused_once_until_it_is_named_anew() -> None:
    endpoint = f"ipc:///{'long' * 100}"
    with capture_logs() as logs:
        links = WorkerLinks(owner=Nobody(), metrics=GatewayMetrics())
        links.add_worker(endpoint)
        links.add_worker(endpoint)
        links.remove_worker(endpoint)
        links.add_worker(endpoint)
        links.close()

    assert [(line["event"], line["endpoint"]) for line in logs] == 2 * [("worker_refused", endpoint)]
