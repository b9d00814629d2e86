"""What a worker does before it serves: load the model, time its steps, decide how many sessions it admits.

``asr-worker --measure-only`` does the same and only says what it found.
"""

import json
import logging
import time
from collections.abc import Iterable
from typing import Any

import structlog

from asr_worker.config import WorkerSettings
from asr_worker.core.admission import Admission, Timing, admit
from asr_worker.core.model import AsrModel, ModelFacts
from asr_worker.io.rehearsal import measure_capacity, warm_up
from asr_worker.metrics import WorkerMetrics
from asr_worker.model.fake import FakeModel
from shared.config import WorkerConfig
from shared.hub import resolve
from shared.log_events import ADMISSION_DECIDED, CONFIG_WARNING_FOUND, MODEL_LOADED


def load(settings: WorkerSettings) -> AsrModel:
    """Return the model that ``settings`` name, ready to step.

    Raises:
        ConfigError: its files or the device are wrong.
        ModelFaultError: the device failed.
    """
    log = structlog.get_logger()
    started_s = time.perf_counter()
    started: dict[str, float | str] = {}
    if settings.fake is not None:
        model: AsrModel = FakeModel(settings.fake)
    else:
        assert settings.module is not None, "only the fake model needs no module"
        # torch takes seconds and hundreds of megabytes, and the fake model needs none of it
        from asr_worker.model.loading import ModelFiles, load_model  # noqa: PLC0415

        module, source = settings.module, settings.source
        files = ModelFiles(
            lm=resolve(module.lm_model_file, source),
            mimi=resolve(module.audio_tokenizer_file, source),
            tokenizer=resolve(module.text_tokenizer_file, source),
        )
        real = load_model(
            module,
            files,
            device=settings.worker.device,
            threads=settings.worker.threads,
            seed=settings.worker.seed,
            kv_cache=settings.worker.kv_cache,
            cpu_weights=settings.worker.cpu_weights,
            attention=settings.worker.attention,
        )
        started = real.started
        for warning in real.warnings:
            log.warning(CONFIG_WARNING_FOUND, warning=warning)
        model = real
    facts = model.facts
    log.info(
        MODEL_LOADED,
        module=settings.module_name,
        device=facts.device,
        dtype=facts.dtype,
        slots=facts.n_slots,
        delay_frames=facts.delay_frames,
        fingerprint=facts.fingerprint,
        load_s=round(time.perf_counter() - started_s, 3),
        **started,
    )
    return model


def decide_admission(model: AsrModel, config: WorkerConfig, metrics: WorkerMetrics) -> Admission:
    """Time the model's steps, unless that is switched off; return how many sessions are admitted, and say so.

    Raises:
        ModelFaultError: the device failed.
    """
    search = measure_capacity(model, config.measure_s)
    admission = admit(model.facts, config, search.measured)
    metrics.admission_decided(admission, search.timings)
    log = structlog.get_logger()
    log.info(ADMISSION_DECIDED, **described(admission, search.timings, model.facts))
    if admission.warning is not None:
        log.warning(CONFIG_WARNING_FOUND, warning=admission.warning)
    return admission


def described(admission: Admission, timings: Iterable[Timing], facts: ModelFacts) -> dict[str, Any]:
    """Return what was measured and decided, as plain values."""
    return {
        "sessions": admission.sessions,
        "files": admission.files,
        "slots": facts.n_slots,
        "measured": admission.measured,
        "reserve": admission.reserve,
        "step_p99_ms": {str(timing.n_active): round(1e3 * timing.p99_s, 1) for timing in timings},
    }


def measure(settings: WorkerSettings) -> None:
    """Print, as one line of JSON, how many sessions this device holds and what a worker would admit.

    Raises:
        ConfigError: settings or files are wrong.
        ModelFaultError: the device failed.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    model = load(settings)
    warm_up(model)
    search = measure_capacity(model, settings.worker.measure_s)
    admission = admit(model.facts, settings.worker, search.measured)
    found = described(admission, search.timings, model.facts)
    print(json.dumps({"device": model.facts.device, "dtype": model.facts.dtype, **found}))  # noqa: T201  (its purpose)
