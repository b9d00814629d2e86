import re

import pytest
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


async def test_workers_whose_sockets_share_a_name_are_told_apart() -> None:
    metrics = GatewayMetrics()
    links = WorkerLinks(owner=Nobody(), metrics=metrics)
    for folder in ("a", "b"):
        links.add_worker(f"ipc:///{folder}/link")
    labels = re.findall(r'worker_up{worker="(.*)"} 0', metrics.render().decode())
    assert labels == ["link", "ipc:///b/link"]
    links.close()


@pytest.mark.parametrize(
    ("endpoint", "label"),
    [("tcp://127.0.0.1:9", "tcp://127.0.0.1:9"), ("ipc:///tmp/asr-x7/worker-0", "worker-0")],
)
async def test_a_worker_that_never_came_is_down_until_it_is_named_no_more(endpoint: str, label: str) -> None:
    metrics = GatewayMetrics()
    links = WorkerLinks(owner=Nobody(), metrics=metrics)
    down = f'asr_gateway_worker_up{{worker="{label}"}} 0'.encode()
    links.add_worker(endpoint)
    assert down in metrics.render().splitlines()
    links.remove_worker(endpoint)
    assert down not in metrics.render().splitlines()
    links.close()
