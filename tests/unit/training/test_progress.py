from training.progress import Fare, Phase, Schedule


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


def test_a_run_from_nothing_hears_simple_speech_first_and_all_of_it_if_it_is_long() -> None:
    fresh, resumed = Schedule(seconds=100), Schedule(seconds=100, resumed=True)
    assert [fresh.fare(done, 3999) for done in (0.0, 0.84, 0.86, 1.0)] == [Fare.SIMPLE] * 2 + [Fare.PLAIN] * 2
    assert [fresh.fare(done, 4000) for done in (0.0, 0.5, 1.0)] == [Fare.ALL] * 3
    assert [resumed.fare(done, 0) for done in (0.0, 0.5, 1.0)] == [Fare.ALL] * 3


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


def test_a_run_that_is_settled_only_keeps_its_rate_until_its_last_quarter_and_hears_all() -> None:
    schedule = Schedule(seconds=100, settled_only=True, peak=1.0)
    assert {schedule.phase(done) for done in (0.0, 0.5, 1.0)} == {Phase.SETTLED}
    assert schedule.fare(0.0, 0) is Fare.ALL
    assert [schedule.learning_rate(done, 1000) for done in (0.0, 0.5, 0.75)] == [1.0] * 3
    assert schedule.learning_rate(0.0, 0) == 0.01
    assert 0.04 < schedule.learning_rate(1.0, 1000) < schedule.learning_rate(0.9, 1000) < 1.0
