from asr_worker.core.admission import Admission, Timing
from asr_worker.metrics import WorkerMetrics

FRESH = """\
# HELP asr_model_step_duration ASR model step duration distribution.
# TYPE asr_model_step_duration histogram
asr_model_step_duration_bucket{le="0.02"} 0
asr_model_step_duration_bucket{le="0.03"} 0
asr_model_step_duration_bucket{le="0.04"} 0
asr_model_step_duration_bucket{le="0.05"} 0
asr_model_step_duration_bucket{le="0.06"} 0
asr_model_step_duration_bucket{le="0.07"} 0
asr_model_step_duration_bucket{le="0.08"} 0
asr_model_step_duration_bucket{le="0.1"} 0
asr_model_step_duration_bucket{le="0.12"} 0
asr_model_step_duration_bucket{le="0.16"} 0
asr_model_step_duration_bucket{le="0.24"} 0
asr_model_step_duration_bucket{le="0.4"} 0
asr_model_step_duration_bucket{le="0.8"} 0
asr_model_step_duration_bucket{le="1.6"} 0
asr_model_step_duration_bucket{le="+Inf"} 0
asr_model_step_duration_sum 0
asr_model_step_duration_count 0
"""


def samples(metrics: WorkerMetrics) -> dict[str, str]:
    lines = metrics.render().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def changes(metrics: WorkerMetrics) -> dict[str, str]:
    fresh = samples(WorkerMetrics())
    return {name: value for name, value in samples(metrics).items() if fresh.get(name) != value}


def test_the_step_histogram_stands_in_moshi_servers_words_before_the_first_step() -> None:
    assert WorkerMetrics().render().decode().startswith(FRESH)


def test_the_names_of_a_worker() -> None:
    families = [line.split()[2] for line in WorkerMetrics().render().decode().splitlines() if line.startswith("# TYPE")]

    assert families == [
        "asr_model_step_duration",
        "asr_worker_frames_total",
        "asr_worker_gateways",
        "asr_worker_late_steps_total",
        "asr_worker_link_errors_total",
        "asr_worker_results_dropped_total",
        "asr_worker_sessions_admitted",
        "asr_worker_sessions_measured",
        "asr_worker_slots_free",
        "asr_worker_slots_used",
        "asr_worker_step_lag_seconds",
        "asr_worker_steps_total",
        "asr_worker_token_log_dropped_total",
        "asr_worker_words_total",
    ]


def test_what_was_timed_at_start_is_shown() -> None:
    metrics = WorkerMetrics()
    metrics.admission_decided(
        Admission(sessions=3, files=1, measured=2), [Timing(n_active=2, median_s=0.05, p99_s=0.0625)]
    )
    assert changes(metrics) == {
        "asr_worker_sessions_admitted": "3",
        "asr_worker_sessions_measured": "2",
        'asr_worker_start_step_seconds{active="2"}': "0.0625",
    }
    metrics.admission_decided(Admission(sessions=3, files=1), [])
    assert changes(metrics)["asr_worker_sessions_measured"] == "-1"


def test_a_step_within_its_frame_is_not_late() -> None:
    metrics = WorkerMetrics()
    metrics.step_finished(0.0625, n_frames=3)
    metrics.step_finished(0.5, n_frames=1)

    assert changes(metrics) == {
        'asr_model_step_duration_bucket{le="0.07"}': "1",
        'asr_model_step_duration_bucket{le="0.08"}': "1",
        'asr_model_step_duration_bucket{le="0.1"}': "1",
        'asr_model_step_duration_bucket{le="0.12"}': "1",
        'asr_model_step_duration_bucket{le="0.16"}': "1",
        'asr_model_step_duration_bucket{le="0.24"}': "1",
        'asr_model_step_duration_bucket{le="0.4"}': "1",
        'asr_model_step_duration_bucket{le="0.8"}': "2",
        'asr_model_step_duration_bucket{le="1.6"}': "2",
        'asr_model_step_duration_bucket{le="+Inf"}': "2",
        "asr_model_step_duration_sum": "0.5625",
        "asr_model_step_duration_count": "2",
        "asr_worker_steps_total": "2",
        "asr_worker_frames_total": "4",
        "asr_worker_late_steps_total": "1",
    }


def test_everything_else_is_counted_under_its_name() -> None:
    metrics = WorkerMetrics()
    metrics.slots_changed(used=3, free=5)
    metrics.gateways_changed(2)
    metrics.step_lagged(0.25)
    metrics.words_recognised(7)
    metrics.session_evicted("gap")
    metrics.session_rejected("full")
    metrics.link_message_refused()
    metrics.result_dropped()
    metrics.token_log_dropped(4)

    assert changes(metrics) == {
        "asr_worker_slots_used": "3",
        "asr_worker_slots_free": "5",
        "asr_worker_gateways": "2",
        "asr_worker_step_lag_seconds": "0.25",
        "asr_worker_words_total": "7",
        'asr_worker_evictions_total{code="gap"}': "1",
        'asr_worker_rejections_total{reason="full"}': "1",
        "asr_worker_link_errors_total": "1",
        "asr_worker_results_dropped_total": "1",
        "asr_worker_token_log_dropped_total": "4",
    }
