"""The results of one model step, from a worker's block to the listeners of its sessions."""

from collections.abc import Callable, Iterable, Mapping

import structlog

from asr_gateway.core.dialect import PackPauses
from asr_gateway.core.replay import step_records
from asr_gateway.io.stream import Stream
from shared.errors import AsrError, LinkError, WorkerLostError
from shared.log_events import UNEXPECTED_ERROR_CAUGHT
from shared.messages import StepBlock, StepEvent
from shared.units import FRAME_SAMPLES, SessionId


class FanOut:
    """Hands blocks out.

    Args:
        streams: all that are open, as they come and go.
        end: ends a stream whose worker has lost count.
    """

    def __init__(self, streams: Mapping[SessionId, Stream], end: Callable[[Stream, AsrError], None]) -> None:
        self._streams = streams
        self._end = end

    def hand_out(self, block: StepBlock) -> None:
        """Tell the listeners what one step brought; sessions or epochs that nobody knows are old news.

        Each gets its step and the words of it in one packet, and does not wait for those behind it.
        """
        packed: dict[PackPauses, list[bytes]] = {}
        events = _by_session(block.events)
        has_heads = block.pauses.shape[1] > 0
        rows = zip(block.sessions.tolist(), block.epochs.tolist(), step_records(block), strict=True)
        for row, (session_id, epoch, record) in enumerate(rows):
            stream = self._streams.get(session_id)
            if stream is None or stream.session.epoch != epoch:
                continue
            listener = stream.listener
            try:
                buffered_pcm = stream.session.stepped(record)
                if buffered_pcm is None:
                    continue
                pack_pauses = listener.pack_pauses
                if has_heads and pack_pauses is not None:
                    if pack_pauses not in packed:
                        packed[pack_pauses] = pack_pauses(block.pauses)
                    listener.step(record[1], packed[pack_pauses][row], buffered_pcm)
                if buffered_pcm >= FRAME_SAMPLES or stream.is_starved:
                    _go_on(stream)
                if session_id in events:
                    self._deliver(events.pop(session_id))
                else:
                    listener.told()
            except Exception as error:  # noqa: BLE001 what breaks in one session ends no other
                self._give_up(stream, error)
        for of_session in events.values():
            self._deliver(of_session)

    def _deliver(self, events: list[StepEvent]) -> None:
        """Tell one session's listener its events, and that this was all."""
        stream = self._streams.get(events[0].session)
        if stream is None:
            return
        try:
            for event in events:
                if stream.session.epoch == event.epoch and stream.session.deliver(event):
                    stream.listener.event(event)
            stream.listener.told()
        except Exception as error:  # noqa: BLE001 as above
            self._give_up(stream, error)

    def _give_up(self, stream: Stream, error: Exception) -> None:
        if isinstance(error, LinkError):
            self._end(stream, WorkerLostError(str(error)))
            return
        structlog.get_logger().exception(UNEXPECTED_ERROR_CAUGHT, **stream.place(), error=type(error).__name__)
        self._end(stream, AsrError("internal error"))


def _go_on(stream: Stream) -> None:
    """A frame may have waited for the credit that has come back, and the client's audio for the room."""
    stream.wake()
    if stream.is_starved and stream.may_read():
        stream.listener.has_room()


def _by_session(events: Iterable[StepEvent]) -> dict[SessionId, list[StepEvent]]:
    by_session: dict[SessionId, list[StepEvent]] = {}
    for event in events:
        by_session.setdefault(event.session, []).append(event)
    return by_session
