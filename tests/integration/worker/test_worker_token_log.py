"""The token log of a real worker: what lies in the files, and that a disk that takes none costs no session."""

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from asr_worker.model.fake_oracle import expected_events
from asr_worker.model.fake_speech import PAD_CODE, FakeSettings, encode

Fixture = Any  # fixtures of conftest.py, whose classes cannot be imported
Speech = Callable[[int, int], NDArray[np.float32]]

DEMO = Path(__file__).parents[3] / "asr_worker" / "demo" / "demo.toml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The demo's configuration with a token log; its sizes shape the fake model."""
    log_dir = tmp_path / "tokens"
    text = DEMO.read_text().replace('log_dir = "./logs"', f'log_dir = "{log_dir}"')
    text = text.replace("temperature = 0.0", "temperature = 0.0\nlog_frequency_s = 0.2")
    path = tmp_path / "logged.toml"
    path.write_text(text)
    return path


def test_the_log_holds_what_every_session_was_fed(
    start_worker: Fixture, connect: Fixture, make_speech: Speech, config: Path, tmp_path: Path
) -> None:
    started_s = time.time()
    worker = start_worker("--config", str(config))
    gateway = connect(worker)
    gateway.hello()
    streams = {number: make_speech(number, 40 + number) for number in (1, 2)}
    for number, pcm in streams.items():
        gateway.open(number)
        gateway.sessions[number].say(pcm)
        gateway.run(lambda: len(gateway.sessions[number].rows) == len(pcm))  # noqa: B023  (run at once)
        gateway.close(number)
    assert worker.stop() == 0
    files = sorted((tmp_path / "tokens").glob("*.safetensors"), key=lambda path: int(path.suffixes[-2][1:]))
    names = [path.name.split("-") for path in files]
    assert {(name[0], name[1]) for name in names} == {("demo", "asr")}
    assert [int(name[3].split(".")[1]) for name in names] == list(range(len(files)))
    assert 0 <= int(names[0][2]) - int(started_s) <= 30
    parts = [load_file(path) for path in files]
    logged = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    assert {name: tensor.shape[:-1] for name, tensor in logged.items()} == {
        "text": (8,),
        "audio": (8, 8),
        "mask": (8,),
        "generation": (8,),
    }
    settings = FakeSettings(n_slots=8)
    assert logged["mask"].sum() == sum(map(len, streams.values())), "both sessions had slot 0, nobody another"
    for generation, pcm in zip(np.unique(logged["generation"][0, logged["mask"][0]]), streams.values(), strict=True):
        steps = logged["mask"][0] & (logged["generation"][0] == generation)
        text, audio = logged["text"][0, steps], logged["audio"][0, :, steps]
        assert text[0] == settings.start_token
        assert audio[0].tolist() == [PAD_CODE] * 8
        assert audio[1:].tolist() == encode(pcm, 8)[:-1].tolist()


def test_a_disk_that_takes_nothing_costs_no_session(
    start_worker: Fixture, connect: Fixture, make_speech: Speech, config: Path, tmp_path: Path
) -> None:
    worker = start_worker("--config", str(config), "--metrics-port", "0")
    (tmp_path / "tokens").rename(tmp_path / "moved")
    (tmp_path / "tokens").write_text("a file where the folder was: nothing can be written into it")
    gateway = connect(worker)
    gateway.hello()
    pcm = make_speech(3, 60)
    gateway.open(1)
    gateway.sessions[1].say(pcm)
    gateway.sessions[1].flush(1)
    gateway.run(lambda: gateway.sessions[1].answers)
    assert gateway.sessions[1].words == expected_events(pcm, flush=True)

    def is_counted() -> bool:
        with urllib.request.urlopen(worker.metrics_url() + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        (count,) = [float(line.split()[1]) for line in lines if line.startswith("asr_worker_token_log_dropped_total")]
        return count >= 66

    gateway.run(is_counted)
    gateway.close(1)
    assert worker.stop() == 0
