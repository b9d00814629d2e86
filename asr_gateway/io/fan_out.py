"""The results of one model step, from a worker's block to the listeners of its sessions."""

from collections.abc import Callable, Mapping
from typing import Final

from asr_gateway.core.dialect import PackPauses
from asr_gateway.io.stream import Listener, Stream
from shared.errors import AsrError, LinkError, WorkerLostError
from shared.messages import StepBlock, StepEvent, StepFlag
from shared.units import SessionId

_CLIENT: Final = int(StepFlag.CLIENT)


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
        """Tell the listeners what one step brought; sessions or epochs that nobody knows are old news."""
        packed: dict[PackPauses, list[bytes]] = {}
        told: list[Listener] = []
        has_heads = block.pauses.shape[1] > 0
        rows = zip(
            block.sessions.tolist(),
            block.epochs.tolist(),
            block.frames.tolist(),
            block.steps.tolist(),
            block.flags.tolist(),
            strict=True,
        )
        for row, (session_id, epoch, frame, step_idx, flag) in enumerate(rows):
            stream = self._streams.get(session_id)
            if stream is None or stream.session.epoch != epoch or flag != _CLIENT:
                continue
            listener = stream.listener
            try:
                buffered_pcm = stream.session.stepped(frame)
            except (LinkError, ValueError) as error:
                self._end(stream, WorkerLostError(str(error)))
                continue
            if buffered_pcm is None:
                continue
            pack_pauses = listener.pack_pauses
            if has_heads and pack_pauses is not None:
                if pack_pauses not in packed:
                    packed[pack_pauses] = pack_pauses(block.pauses)
                listener.step(step_idx, packed[pack_pauses][row], buffered_pcm)
                told.append(listener)
            stream.wake()
            if stream.is_starved and stream.may_read():
                listener.has_room()
        for event in block.events:
            self._deliver(event, told)
        # Only now, so that a client gets its step and the words of it in one packet.
        for listener in told:
            listener.told()

    def _deliver(self, event: StepEvent, told: list[Listener]) -> None:
        stream = self._streams.get(event.session)
        if stream is None or stream.session.epoch != event.epoch:
            return
        try:
            is_for_client = stream.session.deliver(event)
        except LinkError as error:
            self._end(stream, WorkerLostError(str(error)))
            return
        if is_for_client:
            stream.listener.event(event)
            told.append(stream.listener)
