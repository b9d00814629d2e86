from asr_gateway.core.counters_kept import CountersKept

HEAD = "# TYPE asr_model_step_duration histogram\n"
OURS = b"# TYPE asr_worker_steps_total counter\nasr_worker_steps_total 7\n"


def steps(fast: int, slow: int, *, bucket: str = "0.08") -> bytes:
    return (
        f"{HEAD}"
        f'asr_model_step_duration_bucket{{le="{bucket}"}} {fast}\n'
        f'asr_model_step_duration_bucket{{le="+Inf"}} {fast + slow}\n'
        f"asr_model_step_duration_count {fast + slow}\n"
    ).encode()


def fed(*texts: bytes) -> list[str]:
    """The samples that the last of ``texts`` amounts to."""
    kept = CountersKept()
    said = [kept.feed(text) for text in texts][-1]
    return [line for line in said.decode().splitlines() if not line.startswith("#")]


def samples(text: bytes) -> list[str]:
    return text.decode().splitlines()[1:]


def test_who_answers_is_passed_on_as_it_is() -> None:
    assert fed(steps(5, 1), steps(6, 2) + OURS) == [*samples(steps(6, 2)), "asr_worker_steps_total 7"]


def test_who_does_not_answer_keeps_its_service_wide_counts_only() -> None:
    assert fed(steps(5, 1) + OURS, b"") == samples(steps(5, 1))


def test_who_was_never_heard_has_none() -> None:
    assert fed(b"") == []


def test_who_begins_anew_goes_on_from_what_it_had_counted() -> None:
    assert fed(steps(5, 1), steps(8, 1), b"", steps(2, 0), steps(4, 0)) == samples(steps(12, 1))
    assert fed(steps(5, 1), steps(2, 0), steps(1, 1)) == samples(steps(8, 2))


def test_one_count_that_fell_tells_that_all_began_anew() -> None:
    assert fed(steps(5, 1), steps(1, 9)) == samples(steps(6, 10))


def test_another_version_may_have_other_buckets() -> None:
    assert fed(steps(5, 1), steps(2, 0, bucket="0.1")) == samples(steps(7, 1))[1:]


def test_what_does_not_count_is_not_kept() -> None:
    open_channels = b'# TYPE asr_open_channels gauge\nasr_open_channels{handler="all"} 3\n'

    assert fed(open_channels, b"") == []
    assert fed(open_channels, open_channels.replace(b"3", b"2")) == ['asr_open_channels{handler="all"} 2']


def test_an_answer_of_a_stranger_changes_nothing() -> None:
    assert fed(steps(5, 1), b"<html>busy</html>") == samples(steps(5, 1))
