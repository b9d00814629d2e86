import math

import pytest

from bench.step_times import mean_s, quantile_s, read_buckets, read_total

TEXT = """\
# TYPE asr_model_step_duration histogram
asr_model_step_duration_bucket{le="0.02"} 10
asr_model_step_duration_bucket{le="0.08"} 40
asr_model_step_duration_bucket{le="+Inf"} 41
asr_model_step_duration_sum 1.5
asr_model_step_duration_count 41
asr_model_step_duration_bucket{worker="b",le="0.02"} 2
asr_model_step_duration_bucket{worker="b",le="0.08"} 2
asr_model_step_duration_bucket{worker="b",le="+Inf"} 2
asr_model_step_duration_sum{worker="b"} 0.25
asr_model_step_duration_count{worker="b"} 2
"""


def test_the_series_of_all_workers_are_summed() -> None:
    assert read_buckets(TEXT) == {0.02: 12, 0.08: 42, math.inf: 43}


def test_the_mean_is_that_of_the_steps_between_two_readings() -> None:
    assert read_total(TEXT) == (43, 1.75)
    assert mean_s((3, 0.15), read_total(TEXT)) == pytest.approx(0.04)
    assert mean_s((43, 1.75), (43, 1.75)) is None


def test_a_quantile_counts_only_the_steps_between_two_readings() -> None:
    before = {0.02: 100.0, 0.08: 100.0, math.inf: 100.0}
    after = {0.02: 150.0, 0.08: 200.0, math.inf: 200.0}
    assert quantile_s(before, after, 0.5) == pytest.approx(0.02)
    assert quantile_s(before, after, 0.75) == pytest.approx(0.05)


def test_beyond_the_last_edge_nothing_is_known() -> None:
    assert quantile_s({}, {0.08: 1.0, math.inf: 100.0}, 0.99) == math.inf


def test_a_server_without_metrics_has_no_quantiles() -> None:
    assert read_buckets("<html>") == {}
    assert quantile_s({}, {}, 0.5) is None
    assert quantile_s({0.02: 3.0, math.inf: 3.0}, {0.02: 3.0, math.inf: 3.0}, 0.5) is None
