"""Kyutai's protocol, as a client sees it, over real sockets: a gateway in this process, a worker in another."""

import asyncio
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgpack
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from structlog.testing import capture_logs

from asr_gateway import app
from asr_gateway.audio.opus import OggOpusDecoder
from shared.log_events import SESSION_REFUSED
from shared.units import FRAME_SAMPLES, SAMPLE_RATE

FRAME_S = 0.08
NO_KEY_REASON = "a key is needed: send it in the header kyutai-api-key, or as Authorization: Bearer KEY"
DELAY = 6


async def test_the_dance_of_kyutais_client_brings_every_word_before_the_marker(rig: Any, gateway: Any) -> None:
    speech = rig.noise(30.3)
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    async with gateway.ready_client() as client:
        await client.speak(silence[:SAMPLE_RATE])
        await client.speak(speech)
        await client.send("Marker", id=0)
        await client.speak(silence)

        messages = await client.until("Marker")

    n_frames = -(-(SAMPLE_RATE + len(speech)) // FRAME_SAMPLES)
    heard = np.concatenate([silence[:SAMPLE_RATE], speech, silence])[: (n_frames + DELAY) * FRAME_SAMPLES]
    assert messages[-1] == {"type": "Marker", "id": 0}
    assert rig.words_of(messages) == rig.expected_words(heard)
    steps = [message for message in messages if message["type"] == "Step"]
    assert [step["step_idx"] for step in steps] == list(range(1, n_frames + DELAY + 1))
    assert {len(step["prs"]) for step in steps} == {4}


async def test_messages_hold_their_fields_in_the_documented_order(rig: Any, gateway: Any) -> None:
    async with gateway.ready_client() as client:
        await client.speak(rig.noise(12))
        await client.send("Flush", id=2)
        messages = await client.until("Flushed")

    fields = {message["type"]: list(message) for message in messages}
    assert fields == {
        "Step": ["type", "step_idx", "prs", "buffered_pcm"],
        "Word": ["type", "text", "start_time"],
        "EndWord": ["type", "stop_time"],
        "Flushed": ["type", "id"],
    }


async def test_a_client_that_asks_gets_the_silence_prefix_of_the_module(rig: Any, shared_worker: Any) -> None:
    pcm = rig.noise(20.4)
    async with rig.gateway(shared_worker.endpoint, prefix_frames=13) as gateway:
        for query, prefix_frames in (("", 0), ("?silence_prefix=0", 0), ("?silence_prefix=1", 13)):
            url = gateway.url + rig.PATH + query
            async with gateway.http.ws_connect(url, headers={"kyutai-api-key": rig.KEY}) as socket:
                client = await rig.Client(socket).ready()
                await client.speak(pcm)
                await client.send("Flush")
                messages = await client.until("Flushed")

            assert rig.words_of(messages) == rig.expected_words(pcm, flush=True, prefix_frames=prefix_frames)
            assert sum(message["type"] == "Step" for message in messages) == 21


@pytest.mark.parametrize("packet", [1, 77, 480, 1_920, 2_400, 24_000])
async def test_words_do_not_depend_on_how_audio_is_cut(rig: Any, gateway: Any, packet: int) -> None:
    pcm = rig.noise(1.5 if packet == 1 else 20.4)
    async with gateway.ready_client() as client:
        await client.speak(pcm, packet)
        await client.send("Flush")
        messages = await client.until("Flushed")

    assert rig.words_of(messages) == rig.expected_words(pcm, flush=True)
    assert messages[-2]["type"] != "Step"
    assert [message["buffered_pcm"] for message in messages if message["type"] == "Step"][-1] == 0


async def test_every_kind_of_number_is_audio(rig: Any, gateway: Any) -> None:
    halves = (np.round(rig.noise(10) * 3) / 2).astype(np.float32)
    async with gateway.ready_client() as client:
        await client.socket.send_bytes(msgpack.packb({"type": "Audio", "pcm": halves[:5_000].tolist()}))
        mixed = [int(x) if x.is_integer() else x for x in halves[5_000:].tolist()]
        await client.send("Audio", pcm=mixed)
        await client.send("Flush")
        messages = await client.until("Flushed")

    assert rig.words_of(messages) == rig.expected_words(halves, flush=True)


async def test_a_flush_belongs_to_no_client_time_and_audio_goes_on_behind_it(rig: Any, gateway: Any) -> None:
    async with gateway.ready_client() as client:
        await client.speak(rig.noise(10))
        await client.send("Flush", id=1)
        await client.speak(rig.noise(10, seed=2))
        await client.send("Flush", id=2)
        first, second = await client.until("Flushed"), await client.until("Flushed")

    assert (first[-1]["id"], second[-1]["id"]) == (1, 2)
    steps = [message["step_idx"] for message in first + second if message["type"] == "Step"]
    assert steps == list(range(1, 21))
    assert max(end[-1] for end in rig.words_of(first)) <= 10 * FRAME_S + 0.001
    assert all(10 * FRAME_S - 0.001 <= line[-1] <= 20 * FRAME_S + 0.001 for line in rig.words_of(second))


async def test_init_in_mid_stream_starts_afresh_and_nothing_old_follows(rig: Any, gateway: Any) -> None:
    pcm = rig.noise(15, seed=3)
    async with gateway.ready_client() as client:
        await client.speak(rig.noise(40))
        await client.send("Marker", id=1)
        await client.until("Word")
        await client.send("Init")
        await client.speak(pcm)
        await client.send("Flush", id=5)
        await client.until("Ready")
        messages = await client.until("Flushed")

    assert rig.words_of(messages) == rig.expected_words(pcm, flush=True)
    assert [message["step_idx"] for message in messages if message["type"] == "Step"] == list(range(1, 16))
    assert not [message for message in messages if message["type"] == "Marker"]


async def test_a_reset_keeps_the_time_and_is_answered(rig: Any, gateway: Any) -> None:
    async with gateway.ready_client() as client:
        await client.speak(rig.noise(10))
        await client.send("Reset", id=8)
        await client.speak(rig.noise(10))
        await client.send("Flush")
        before, after = await client.until("ResetDone"), await client.until("Flushed")

    assert before[-1] == {"type": "ResetDone", "id": 8}
    assert [message["step_idx"] for message in after if message["type"] == "Step"] == list(range(11, 21))
    assert min(line[-1] for line in rig.words_of(after)) >= 10 * FRAME_S - 0.001


async def test_markers_return_in_order_and_one_behind_a_flush_at_once(rig: Any, gateway: Any) -> None:
    async with gateway.ready_client() as client:
        for marker_id in (3, 1, 3, -(2**63)):
            await client.speak(rig.noise(2))
            await client.send("Marker", id=marker_id)
        await client.send("Flush")
        await client.send("Marker", id=2**63 - 1)
        messages = await client.until("Flushed") + await client.until("Marker")

    markers = [message["id"] for message in messages if message["type"] == "Marker"]
    assert markers == [3, 1, 3, -(2**63), 2**63 - 1]


@pytest.mark.parametrize("as_integers", [False, True])
async def test_ogg_opus_in_pieces_is_transcribed(rig: Any, gateway: Any, as_integers: bool) -> None:  # noqa: FBT001
    file = io.BytesIO()
    soundfile.write(file, rig.noise(25), SAMPLE_RATE, format="OGG", subtype="OPUS")
    data = file.getvalue()
    async with gateway.ready_client() as client:
        for start in range(0, len(data), 333):
            piece = data[start : start + 333]
            await client.send("OggOpus", data=list(piece) if as_integers else piece)
        await client.send("Flush")
        messages = await client.until("Flushed")

    assert [message["step_idx"] for message in messages if message["type"] == "Step"] == list(range(1, 26))
    assert rig.words_of(messages)


@pytest.mark.parametrize("n_bytes", [60_000, 1 << 20])
async def test_a_long_message_of_opus_lets_the_others_have_a_turn_after_each_second_of_it(
    rig: Any, shared_worker: Any, monkeypatch: pytest.MonkeyPatch, n_bytes: int
) -> None:
    turns, decoded_in = 0, []

    class Decoder:
        def __init__(self) -> None:
            self._decoder = OggOpusDecoder()

        def feed_in_pieces(self, data: bytes) -> Iterator[NDArray[np.float32]]:
            for pcm in self._decoder.feed_in_pieces(data):
                decoded_in.append(turns)
                yield pcm

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    monkeypatch.setattr(app, "OggOpusDecoder", Decoder)
    pcm = rig.noise(200)
    file = io.BytesIO()
    soundfile.write(file, pcm, SAMPLE_RATE, format="OGG", subtype="OPUS")
    data = file.getvalue()
    async with rig.gateway(shared_worker.endpoint) as gateway, gateway.ready_client() as client:
        counting = asyncio.create_task(count_turns())
        for start in range(0, len(data), n_bytes):
            await client.send("OggOpus", data=data[start : start + n_bytes])
        await client.send("Flush")
        messages = await client.until("Flushed")
        counting.cancel()

    assert len(decoded_in) >= 16
    # The rest of one message and the beginning of the next may come together.
    assert max(Counter(decoded_in).values()) <= 2
    assert len([message for message in messages if message["type"] == "Step"]) in (200, 201)


async def test_init_begins_a_new_opus_stream(rig: Any, gateway: Any) -> None:
    file = io.BytesIO()
    soundfile.write(file, rig.noise(5), SAMPLE_RATE, format="OGG", subtype="OPUS")
    async with gateway.ready_client() as client:
        for _ in range(2):
            await client.send("OggOpus", data=file.getvalue())
            await client.send("Flush")
            await client.until("Flushed")
            await client.send("Init")
            await client.until("Ready")


async def test_text_pings_and_unknown_keys_are_ignored(gateway: Any) -> None:
    async with gateway.ready_client(autoping=False) as client:
        await client.socket.send_str("not for you")
        await client.socket.ping(b"are you there")
        pong = await client.socket.receive(timeout=5)
        assert (pong.type, bytes(pong.data)) == (aiohttp.WSMsgType.PONG, b"are you there")

        await client.send("Flush", id=1, nonsense={"a": [1, 2]})

        assert await client.receive() == {"type": "Flushed", "id": 1}


# --- keys -------------------------------------------------------------------------------------------------


async def test_a_key_may_come_in_the_query_beside_anything_else(rig: Any, gateway: Any) -> None:
    url = f"{gateway.url}{rig.PATH}?format=PcmMessagePack&auth_id={rig.KEY}"
    async with gateway.http.ws_connect(url) as socket:
        await rig.Client(socket).ready()


@pytest.mark.parametrize("headers", [{}, {"kyutai-api-key": "wrong"}])
async def test_without_a_known_key_the_upgrade_is_refused(rig: Any, gateway: Any, headers: dict[str, str]) -> None:
    with capture_logs() as logs, pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await gateway.http.ws_connect(gateway.url + rig.PATH, headers=headers)
    assert caught.value.status == 401
    # A page in a browser is told no more than that there is no connection: whoever runs the service must see why.
    assert await gateway.metric('asr_gateway_sessions_refused_total{kind="live",code="unauthorized"}') == 1
    (line,) = [line for line in logs if line["event"] == SESSION_REFUSED]
    assert (line["kind"], line["code"]) == ("live", "unauthorized")
    assert line["reason"] == ("the key is not known" if headers else NO_KEY_REASON)


async def test_without_keys_pages_of_other_hosts_may_not_connect(rig: Any, shared_worker: Any) -> None:
    async with rig.gateway(shared_worker.endpoint, keys=(), allow_no_keys=True) as gateway:
        async with gateway.ready_client(headers={"Origin": gateway.url}):
            pass
        for origin in ("https://elsewhere.example", "null", "http://["):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await gateway.http.ws_connect(gateway.url + rig.PATH, headers={"Origin": origin})
            assert caught.value.status == 401
        await rig.eventually(lambda: _used(gateway, 0))


# --- what is not allowed ----------------------------------------------------------------------------------

BAD = {
    "no MessagePack": b"\xc1",
    "half a message": b"\x82\xa4type\xa5Audio\xa3pcm\xdc\x07\x80\xca",
    "no map": msgpack.packb([1, 2]),
    "no type": msgpack.packb({"pcm": [0.0]}),
    "unknown type": msgpack.packb({"type": "Sing"}),
    "text as audio": msgpack.packb({"type": "Audio", "pcm": "x"}),
    "text among the audio": msgpack.packb({"type": "Audio", "pcm": [0.0, "x"]}),
    "marker without id": msgpack.packb({"type": "Marker"}),
    "marker too large": msgpack.packb({"type": "Marker", "id": 2**63}),
    "Opus that is none": msgpack.packb({"type": "OggOpus", "data": b"RIFF" * 100}),
    "Opus out of range": msgpack.packb({"type": "OggOpus", "data": [256]}),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
async def test_a_bad_message_closes_its_own_session_only(rig: Any, gateway: Any, message: bytes) -> None:
    pcm = rig.noise(12)
    async with gateway.ready_client() as good, gateway.ready_client() as bad:
        await good.speak(pcm[:10_000])
        await bad.speak(pcm[:10_000])
        await bad.socket.send_bytes(message)

        code, text, close_code = await bad.refusal()

        assert (code in ("bad_message", "bad_audio"), close_code) == (True, 1008)
        assert text
        await good.speak(pcm[10_000:])
        await good.send("Flush")
        assert rig.words_of(await good.until("Flushed")) == rig.expected_words(pcm, flush=True)


async def test_a_client_that_goes_on_talking_still_learns_what_was_wrong(rig: Any, gateway: Any) -> None:
    async with gateway.ready_client() as client:
        await client.send("Sing")
        for _ in range(50):
            await client.speak(rig.noise(1))
            await asyncio.sleep(0)
        assert (await client.refusal())[2] == 1008


async def test_more_pending_markers_than_allowed_are_an_error(gateway: Any) -> None:
    async with gateway.ready_client() as client:
        await client.send("Audio", pcm=[0.0])
        for marker_id in range(513):
            await client.send("Marker", id=marker_id)

        assert await client.refusal() == ("bad_message", "Marker: 512 markers are pending, no more are allowed", 1008)


async def test_a_message_of_more_than_one_mebibyte_is_too_large(gateway: Any) -> None:
    async with gateway.ready_client() as client:
        await client.socket.send_bytes(b"\x00" * ((1 << 20) + 1))

        assert await client.refusal() == ("too_large", "a message may have at most 1048576 bytes", 1009)


async def test_a_message_of_one_mebibyte_is_read(gateway: Any) -> None:
    async with gateway.ready_client() as client:
        head = msgpack.packb({"type": "Init", "padding": b""})
        padding = b"\x00" * ((1 << 20) - len(head) - 3)
        await client.send("Init", padding=padding)

        await client.ready()


async def test_a_full_service_refuses_in_the_words_that_clients_compare(rig: Any, gateway: Any) -> None:
    async with gateway.ready_client(), gateway.ready_client(), gateway.ready_client():
        async with gateway.ready_client(), gateway.client() as fifth:
            assert await fifth.refusal() == ("no_free_slot", "no free channels", 1013)
        await rig.eventually(lambda: _used(gateway, 3))
        async with gateway.ready_client():
            pass


async def test_a_slot_that_becomes_free_in_time_is_given_to_who_waits(rig: Any, shared_worker: Any) -> None:
    async with rig.gateway(shared_worker.endpoint, slot_wait_s=5.0) as gateway:
        clients = [await gateway.http.ws_connect(gateway.url + rig.PATH, headers={"kyutai-api-key": rig.KEY})
                   for _ in range(4)]  # fmt: skip
        async with gateway.client() as fifth:
            await fifth.speak(rig.noise(3))
            await clients[0].close()

            await fifth.ready()

            await fifth.send("Flush")
            steps = [m["step_idx"] for m in await fifth.until("Flushed") if m["type"] == "Step"]
            assert steps == [1, 2, 3]
        for client in clients:
            await client.close()
        await rig.eventually(lambda: _used(gateway, 0))


async def test_a_client_that_vanishes_frees_its_slot(rig: Any, gateway: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(rig.upgrade())
    await reader.readuntil(b"\xa5Ready")
    await rig.eventually(lambda: _used(gateway, 1))

    writer.transport.abort()

    await rig.eventually(lambda: _used(gateway, 0))


async def _used(gateway: Any, n_slots: int) -> bool:
    return bool(await gateway.used_slots() == n_slots)


# --- around it --------------------------------------------------------------------------------------------


async def test_modules_info_has_moshi_servers_fields(rig: Any, gateway: Any) -> None:
    async with gateway.ready_client():
        await rig.eventually(lambda: _used(gateway, 1))
        (module,) = await gateway.json("/api/modules_info")

    assert list(module.items())[:6] == [
        ("type", "batched_asr"),
        ("path", rig.PATH),
        ("lm", "fake.lm"),
        ("audio_tokenizer", "fake.mimi"),
        ("used_slots", "1"),
        ("total_slots", "4"),
    ]


async def test_sessions_are_counted(rig: Any, gateway: Any) -> None:
    async with gateway.ready_client() as client:
        assert await gateway.metric('asr_open_channels{handler="all"}') == 1
        await client.speak(rig.noise(5))
        await client.send("Flush")
        await client.until("Flushed")
    await rig.eventually(lambda: _used(gateway, 0))

    assert await gateway.metric('asr_connect{handler="all"}') == 1
    assert await gateway.metric('asr_open_channels{handler="all"}') == 0
    assert await gateway.metric("asr_connection_num_steps_sum") == 5


@pytest.mark.parametrize("path", ["/healthz", "/", "/nothing", "/api/asr-streaming"])
async def test_no_answer_names_what_runs_here(gateway: Any, path: str) -> None:
    async with gateway.http.get(gateway.url + path) as response:
        assert "Server" not in response.headers


async def test_the_path_answers_a_plain_get_with_what_it_wants(rig: Any, gateway: Any) -> None:
    async with gateway.http.get(gateway.url + rig.PATH) as response:
        assert (response.status, response.headers["Upgrade"]) == (426, "websocket")
    assert await gateway.status("/healthz") == 200
    assert await gateway.status("/api/build_info") == 200
    assert await gateway.status("/") == 200
    assert await gateway.status("/nothing") == 404


async def test_what_a_client_asks_for_as_subprotocol_is_no_line_in_the_log(
    gateway: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway.ready_client(protocols=("token", "may-be-a-key")) as client:
        assert client.socket.protocol is None
    assert "may-be-a-key" not in caplog.text
