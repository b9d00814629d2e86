from asr_gateway.core.clocks import ClientClocks, ClockLimits, Verdict
from shared.config import GatewayConfig

LIMITS = ClockLimits.of(GatewayConfig())


def clocks() -> ClientClocks:
    return ClientClocks(LIMITS, 0.0)


def test_ten_seconds_without_output_call_for_a_ping_and_then_ten_more() -> None:
    clock = clocks()
    clock.heard(9.0)

    assert [clock.check(now, is_busy=False) for now in (9.9, 10.0, 10.1, 19.9, 20.0)] == [
        Verdict.NOTHING,
        Verdict.PING,
        Verdict.NOTHING,
        Verdict.NOTHING,
        Verdict.PING,
    ]


def test_output_puts_the_ping_off_for_a_client_that_speaks() -> None:
    clock = clocks()
    clock.sent_at = 8.0
    clock.heard(9.0)

    assert clock.check(17.9, is_busy=False) is Verdict.NOTHING
    assert clock.check(18.0, is_busy=False) is Verdict.PING


def test_twenty_seconds_of_silence_end_a_client() -> None:
    clock = clocks()
    assert clock.check(15.0, is_busy=False) is Verdict.PING

    assert clock.check(19.9, is_busy=False) is Verdict.NOTHING
    assert clock.check(20.0, is_busy=False) is Verdict.SILENT


def test_a_client_that_only_reads_what_comes_of_its_audio_is_pinged_before_it_counts_as_silent() -> None:
    clock = clocks()
    verdicts = []
    for now in range(1, 61):
        clock.sent_at = now
        verdicts.append(clock.check(now, is_busy=True))
        if verdicts[-1] is Verdict.PING:
            clock.heard(now + 0.1)

    assert verdicts.count(Verdict.PING) == 5
    assert set(verdicts) == {Verdict.PING, Verdict.NOTHING}


def test_a_pong_is_a_sign_of_life_but_no_message() -> None:
    clock = clocks()
    for now in range(0, 120, 10):
        clock.heard(now)
        clock.sent_at = now

    assert clock.check(119.9, is_busy=False) is Verdict.NOTHING
    clock.heard(119.9)
    assert clock.check(120.0, is_busy=False) is Verdict.IDLE


def test_a_message_renews_both_clocks() -> None:
    clock = clocks()
    clock.understood(100.0)
    clock.heard(215.0)
    clock.sent_at = 215.0

    assert clock.check(219.9, is_busy=False) is Verdict.NOTHING
    assert clock.check(220.0, is_busy=False) is Verdict.IDLE


def test_a_client_that_waits_for_an_answer_is_not_idle() -> None:
    clock = clocks()
    clock.heard(299.0)
    clock.sent_at = 299.0

    assert clock.check(300.0, is_busy=True) is Verdict.NOTHING
    clock.heard(419.0)
    clock.sent_at = 419.0
    assert clock.check(419.9, is_busy=False) is Verdict.NOTHING
    assert clock.check(420.0, is_busy=False) is Verdict.IDLE


def test_the_clocks_stand_still_while_the_server_does_not_read() -> None:
    clock = clocks()
    clock.pause(10.0)
    clock.sent_at = 1000.0

    assert clock.check(1000.0, is_busy=False) is Verdict.NOTHING
    clock.resume(1000.0)
    assert clock.check(1000.1, is_busy=False) is Verdict.PING
    assert clock.check(1009.9, is_busy=False) is Verdict.NOTHING
    assert clock.check(1010.0, is_busy=False) is Verdict.SILENT


def test_pausing_twice_counts_from_the_first_time() -> None:
    clock = clocks()
    clock.pause(5.0)
    clock.pause(50.0)
    clock.resume(100.0)
    assert clock.check(110.0, is_busy=False) is Verdict.PING

    assert clock.check(114.9, is_busy=False) is Verdict.NOTHING
    assert clock.check(115.0, is_busy=False) is Verdict.SILENT


def test_fifteen_seconds_of_unread_output_are_too_slow() -> None:
    clock = clocks()
    clock.fill_output(3.0)
    clock.fill_output(9.0)
    clock.pause(3.0)

    assert clock.check(17.9, is_busy=False) is not Verdict.SLOW
    assert clock.check(18.0, is_busy=False) is Verdict.SLOW


def test_output_that_was_read_in_time_is_forgiven() -> None:
    clock = clocks()
    clock.fill_output(3.0)
    clock.drain_output()
    clock.understood(17.0)
    clock.sent_at = 17.0

    assert clock.check(18.0, is_busy=False) is Verdict.NOTHING


def test_while_the_server_stood_still_nobody_was_silent_idle_or_slow() -> None:
    clock = clocks()
    clock.understood(100.0)
    clock.fill_output(100.0)
    clock.sent_at = 100.0

    clock.excuse(60.0, 160.0)

    assert clock.check(174.9, is_busy=False) is Verdict.PING
    assert clock.check(175.0, is_busy=False) is Verdict.SLOW
    clock.drain_output()
    assert clock.check(179.9, is_busy=False) is Verdict.NOTHING
    assert clock.check(180.0, is_busy=False) is Verdict.SILENT


def test_what_was_heard_after_a_stall_is_not_heard_in_the_future() -> None:
    clock = clocks()
    clock.understood(160.0)

    clock.excuse(60.0, 160.0)
    clock.sent_at = 179.0

    assert clock.check(180.0, is_busy=False) is Verdict.SILENT


def test_a_stall_while_reading_was_paused_is_not_excused_twice() -> None:
    clock = clocks()
    clock.pause(1.0)
    clock.excuse(60.0, 61.0)
    clock.resume(61.0)
    assert clock.check(79.0, is_busy=False) is Verdict.PING

    assert clock.check(79.9, is_busy=False) is Verdict.NOTHING
    assert clock.check(80.0, is_busy=False) is Verdict.SILENT
