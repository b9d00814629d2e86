from training.progress import Phase, Schedule


def test_a_run_from_nothing_goes_through_all_phases_and_a_resumed_one_starts_discrete() -> None:
    fresh, resumed = Schedule(seconds=100), Schedule(seconds=100, resumed=True)
    moments = (0, 34, 36, 84, 86)
    assert [fresh.phase(fresh.done(s, 0)) for s in moments] == [
        Phase.CONTINUOUS,
        Phase.CONTINUOUS,
        Phase.DISCRETE,
        Phase.DISCRETE,
        Phase.SETTLED,
    ]
    assert [resumed.phase(resumed.done(s, 0)) for s in moments] == [Phase.DISCRETE] * 4 + [Phase.SETTLED]


def test_only_a_run_from_nothing_begins_with_simple_speech() -> None:
    fresh, resumed = Schedule(seconds=100), Schedule(seconds=100, resumed=True)
    assert [fresh.is_simple(done) for done in (0.0, 0.69, 0.71, 1.0)] == [True, True, False, False]
    assert not any(resumed.is_simple(done) for done in (0.0, 0.5, 1.0))


def test_steps_count_instead_of_time_when_they_are_given() -> None:
    schedule = Schedule(seconds=100, steps=10)
    assert [schedule.done(1e9, step) for step in (0, 5, 10, 20)] == [0.0, 0.5, 1.0, 1.0]


def test_the_rate_warms_up_and_falls_in_each_phase() -> None:
    schedule = Schedule(seconds=100, peak=1.0)
    rates = [schedule.learning_rate(done, 1000) for done in (0.0, 0.4, 0.8, 0.849)]
    assert rates == sorted(rates, reverse=True)
    assert schedule.learning_rate(0.0, 0) == 0.01
    assert schedule.learning_rate(0.86, 1000) > rates[-1]
    assert schedule.learning_rate(1.0, 1000) < 0.01
