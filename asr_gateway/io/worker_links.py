"""All links of one gateway process, by endpoint: the roster that discovery fills."""

from typing import Final

import structlog
import zmq

from asr_gateway.io.worker_link import LinkOwner, WorkerLink
from asr_gateway.metrics import GatewayMetrics
from shared.log_events import WORKER_FOUND, WORKER_REFUSED

MAX_WORKERS: Final = 256


class WorkerLinks:
    """The links, each of which tells ``owner`` what comes."""

    def __init__(self, *, owner: LinkOwner, metrics: GatewayMetrics) -> None:
        self._owner = owner
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._links: dict[str, WorkerLink] = {}
        self._refused: set[str] = set()
        """Endpoints that were named and cannot be reached; they are named again and again."""

    def __getitem__(self, endpoint: str) -> WorkerLink:
        return self._links[endpoint]

    def add_worker(self, endpoint: str) -> None:
        """Connect to a worker, unless that is done already."""
        if endpoint in self._links:
            return
        if len(self._links) >= MAX_WORKERS:
            self._refuse(endpoint, f"there are {MAX_WORKERS} workers already")
            return
        link = WorkerLink(endpoint=endpoint, label=self._label(endpoint), context=self._context, owner=self._owner)
        try:
            link.open()
        except zmq.ZMQError as error:
            link.close()
            self._refuse(endpoint, str(error))
            return
        self._refused.discard(endpoint)
        self._links[endpoint] = link
        # Not heard yet: one that never comes must be seen to be missing.
        self._metrics.worker_lost(link.label)
        self._log.info(WORKER_FOUND, endpoint=endpoint)

    def _label(self, endpoint: str) -> str:
        """Return the name of a worker's Unix socket, whose folder may be a temporary one; all if that is taken."""
        name = endpoint.rpartition("/")[2] if endpoint.startswith("ipc://") else endpoint
        return endpoint if any(link.label == name for link in self._links.values()) else name

    def _refuse(self, endpoint: str, reason: str) -> None:
        if endpoint not in self._refused:
            self._refused.add(endpoint)
            self._log.warning(WORKER_REFUSED, endpoint=endpoint, reason=reason)

    def remove_worker(self, endpoint: str) -> bool:
        """Forget a worker that is not named any more; return whether that was done, which it is not while it lives."""
        link = self._links.get(endpoint)
        if link is not None and link.is_welcome:
            return False
        self._refused.discard(endpoint)
        if link is not None:
            del self._links[endpoint]
            link.close()
            self._metrics.worker_forgotten(link.label)
        return True

    def pulse(self, now: float) -> None:
        """Let every link hear and say what is due."""
        for link in list(self._links.values()):
            link.pulse(now)
            self._metrics.link_received(link.n_received)
            self._metrics.link_sent(link.n_sent)
            link.n_received = link.n_sent = 0

    def close(self) -> None:
        """Disconnect from everybody."""
        for link in self._links.values():
            link.close()
        self._links.clear()
        # Not term(): that would wait for ever for a socket that was left open by mistake.
        self._context.destroy(linger=0)
