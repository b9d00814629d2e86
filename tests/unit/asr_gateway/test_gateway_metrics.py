from asr_gateway.core.key_hash import key_hash
from asr_gateway.metrics import GatewayMetrics

ONE_SESSION = """\
# HELP asr_connect Number of connections to the asr.
# TYPE asr_connect counter
asr_connect{handler="all"} 2
# HELP asr_connection_num_steps ASR model, distribution of number of steps for a connection.
# TYPE asr_connection_num_steps histogram
asr_connection_num_steps_bucket{le="2"} 0
asr_connection_num_steps_bucket{le="25"} 0
asr_connection_num_steps_bucket{le="125"} 1
asr_connection_num_steps_bucket{le="250"} 1
asr_connection_num_steps_bucket{le="500"} 1
asr_connection_num_steps_bucket{le="750"} 1
asr_connection_num_steps_bucket{le="1125"} 1
asr_connection_num_steps_bucket{le="1500"} 1
asr_connection_num_steps_bucket{le="2250"} 1
asr_connection_num_steps_bucket{le="3000"} 1
asr_connection_num_steps_bucket{le="4500"} 1
asr_connection_num_steps_bucket{le="+Inf"} 1
asr_connection_num_steps_sum 30
asr_connection_num_steps_count 1
# HELP asr_gateway"""

CHANNELS = """
# HELP asr_open_channels Number of open channels (users currently connected).
# TYPE asr_open_channels gauge
asr_open_channels{handler="all"} 1
"""


def samples(metrics: GatewayMetrics) -> dict[str, str]:
    lines = metrics.render().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def changes(metrics: GatewayMetrics) -> dict[str, str]:
    fresh = samples(GatewayMetrics())
    return {name: value for name, value in samples(metrics).items() if fresh.get(name) != value}


def test_connections_are_told_in_moshi_servers_words() -> None:
    metrics = GatewayMetrics()
    metrics.connected()
    metrics.connected()
    metrics.session_opened("live")
    metrics.session_opened("file")
    metrics.session_closed("live", code="done", n_steps=30)

    text = metrics.render().decode()
    assert text.startswith(ONE_SESSION)
    assert text.endswith(CHANNELS)


def test_sessions_are_told_apart_by_kind_and_by_how_they_ended() -> None:
    metrics = GatewayMetrics()
    for kind, code in [("live", "done"), ("live", "slow_consumer"), ("file", "done")]:
        metrics.session_opened(kind)
        metrics.session_closed(kind, code=code, n_steps=5000)
    metrics.session_refused("live", code="no_free_slot")

    assert changes(metrics) == {
        'asr_connection_num_steps_bucket{le="+Inf"}': "3",
        "asr_connection_num_steps_sum": "15000",
        "asr_connection_num_steps_count": "3",
        'asr_gateway_sessions_opened_total{kind="live"}': "2",
        'asr_gateway_sessions_opened_total{kind="file"}': "1",
        'asr_gateway_sessions_closed_total{kind="live",code="done"}': "1",
        'asr_gateway_sessions_closed_total{kind="live",code="slow_consumer"}': "1",
        'asr_gateway_sessions_closed_total{kind="file",code="done"}': "1",
        'asr_gateway_sessions_refused_total{kind="live",code="no_free_slot"}': "1",
    }


def test_what_alarms_are_set_on_is_there_before_it_happens() -> None:
    fresh = samples(GatewayMetrics())
    awaited = ('refused_total{kind="live",code="no_free_slot"}', 'closed_total{kind="live",code="worker_lost"}')
    assert [fresh.get(f"asr_gateway_sessions_{name}") for name in awaited] == ["0", "0"]


def test_everything_else_is_counted_under_its_name() -> None:
    metrics = GatewayMetrics()
    metrics.audio_received(1.5, key=key_hash("public_token"))
    metrics.audio_received(2.5, key=key_hash("public_token"))
    metrics.audio_received(1.0, key=key_hash(None))
    metrics.words_sent(3)
    metrics.bytes_received(1000)
    metrics.bytes_sent(10)
    metrics.post_answered(200)
    metrics.post_answered(503)
    metrics.file_queue_changed(4)
    metrics.link_received(5)
    metrics.link_sent()
    metrics.loop_lagged(2.25)

    assert changes(metrics) == {
        'asr_gateway_audio_seconds_total{key="a0bac625"}': "4",
        'asr_gateway_audio_seconds_total{key="none"}': "1",
        "asr_gateway_words_total": "3",
        "asr_gateway_received_bytes_total": "1000",
        "asr_gateway_sent_bytes_total": "10",
        'asr_gateway_post_requests_total{status="200"}': "1",
        'asr_gateway_post_requests_total{status="503"}': "1",
        "asr_gateway_file_queue_length": "4",
        'asr_gateway_link_messages_total{direction="in"}': "5",
        'asr_gateway_link_messages_total{direction="out"}': "1",
        'asr_gateway_loop_lag_seconds_bucket{le="2.5"}': "1",
        'asr_gateway_loop_lag_seconds_bucket{le="+Inf"}': "1",
        "asr_gateway_loop_lag_seconds_sum": "2.25",
        "asr_gateway_loop_lag_seconds_count": "1",
    }


def test_a_worker_is_up_then_lost_then_forgotten() -> None:
    metrics = GatewayMetrics()
    metrics.worker_heard("tcp://a:1", used=3, free=5)
    assert changes(metrics) == {
        'asr_gateway_worker_up{worker="tcp://a:1"}': "1",
        'asr_gateway_worker_slots_used{worker="tcp://a:1"}': "3",
        'asr_gateway_worker_slots_free{worker="tcp://a:1"}': "5",
    }

    metrics.worker_lost("tcp://a:1")
    assert set(changes(metrics).values()) == {"0"}

    metrics.worker_forgotten("tcp://a:1")
    assert changes(metrics) == {}


def test_the_hash_of_a_key_is_short_and_always_the_same() -> None:
    assert [key_hash("public_token"), key_hash("a"), key_hash(""), key_hash(None)] == [
        "a0bac625",
        "ca978112",
        "none",
        "none",
    ]
