from pathlib import Path
from typing import Any

import pytest

from asr_gateway.config import GatewaySettings, read_settings
from asr_gateway.core.modules import ServedModule
from asr_gateway.io.discovery import Fixed, Listed, Named
from shared.errors import ConfigError

WORKER = ("--worker", "tcp://127.0.0.1:5")


def read(*flags: str, **environ: str) -> GatewaySettings:
    return read_settings(flags, environ)


def problems(*flags: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(*flags, **environ)
    return caught.value.problems


def test_flags_win_over_the_environment_and_that_over_the_file(sample_config: Any) -> None:
    sample_config.path.write_text(sample_config.base + "\n[gateway]\nport = 1000\nmax_sessions = 7\nslot_wait_s = 1\n")
    config = str(sample_config.path)

    settings = read("--port", "3000", *WORKER, ASR_CONFIG=config, ASR_PORT="2000", ASR_MAX_SESSIONS="8")

    gateway = settings.gateway
    assert (gateway.port, gateway.max_sessions, gateway.slot_wait_s) == (3_000, 8, 1.0)


def test_the_file_tells_modules_keys_and_folders(sample_config: Any) -> None:
    sample_config.path.write_text(
        sample_config.base
        + sample_config.module("other").replace("batch_size = 4", "batch_size = 4\nsilence_prefix_s = 1")
    )

    settings = read("--config", str(sample_config.path), "--key", "third", *WORKER)

    assert [(module.name, module.path, module.silence_prefix_frames) for module in settings.modules] == [
        ("asr", "/api/asr", 0),
        ("other", "/api/other", 12),
    ]
    assert settings.modules[0].lm == "lm.safetensors"
    assert settings.keys == ("first key", "second", "third")
    assert settings.static_dir == sample_config.path.parent / "pages"
    assert settings.instance_name == "unit"
    assert "first key" not in repr(settings)


def test_without_a_file_one_module_is_served() -> None:
    settings = read("--allow-no-keys", *WORKER)

    assert settings.modules == (
        ServedModule(name="fake", path="/api/asr-streaming", lm="unknown", audio_tokenizer="unknown"),
    )


def test_workers_come_from_flags_and_the_environment() -> None:
    listed = read(*WORKER, "--worker", "ipc:///tmp/w", "--discover", "file:///w", "--key", "k")
    told = read(ASR_WORKER="tcp://127.0.0.1:5,tcp://127.0.0.1:6", ASR_DISCOVER="dns://w:5", ASR_KEY="k")

    assert listed.sources == (Fixed("tcp://127.0.0.1:5"), Fixed("ipc:///tmp/w"), Listed(Path("/w")))
    assert told.sources == (
        Fixed("tcp://127.0.0.1:5"),
        Fixed("tcp://127.0.0.1:6"),
        Named("w", 5, every_address=True),
    )


def test_moshi_servers_short_flags_mean_what_they_did() -> None:
    gateway = read("-a", "localhost", "-p", "9000", "--key", "k", *WORKER).gateway
    assert (gateway.host, gateway.port) == ("localhost", 9000)


def test_moshi_servers_flags_are_understood() -> None:
    settings = read("--addr", "localhost", "--port", "9000", "--cpu", "-l", "debug", "--silent", "--key", "k", *WORKER)

    assert (settings.gateway.host, settings.gateway.port) == ("localhost", 9_000)
    assert (settings.log_level, settings.is_silent) == ("debug", True)
    assert settings.warnings == ("--cpu has no effect: a gateway needs no GPU",)


def test_a_gateway_without_workers_or_file_does_not_start() -> None:
    assert problems()[0].startswith("no configuration file")


def test_a_gateway_without_keys_does_not_start_unless_told_so_on_loopback(sample_config: Any) -> None:
    sample_config.path.write_text(sample_config.changed('authorized_ids = ["first key", "second"]\n', ""))
    config = ("--config", str(sample_config.path), *WORKER)

    assert problems(*config)[0].startswith("no keys: set authorized_ids")
    assert problems(*config, "--allow-no-keys", "--host", "0.0.0.0") == (
        'host "0.0.0.0": without keys only a loopback address like "127.0.0.1" is allowed',
    )
    for host in ("127.0.0.1", "::1", "localhost"):
        assert read(*config, "--allow-no-keys", "--host", host).keys == ()


def test_every_wrong_source_is_named(sample_config: Any) -> None:
    sample_config.path.write_text(sample_config.base)

    found = problems("--config", str(sample_config.path), "--worker", "a", "--discover", "b")

    assert [problem.split(":")[0] for problem in found] == ["worker 'a'", "discover 'b'"]
    assert problems("--config", str(sample_config.path))[0].startswith("no worker: give --worker")


def test_a_scrape_that_names_no_url_is_refused() -> None:
    wrong = ("ftp://w/metrics", "w=ftp://w/metrics", "http://[::1", "http://w:99999/metrics", "w=http:///metrics")

    found = problems(*WORKER, "--key", "k", *(f"--scrape={source}" for source in wrong))

    assert found == tuple(f"scrape {source!r}: must be an http URL, or NAME=URL" for source in wrong)
    right = ("ipc:///tmp/0=http://127.0.0.1:1/metrics", "https://w/metrics")
    assert read(*WORKER, "--key", "k", *(f"--scrape={source}" for source in right)).scrape == {
        "ipc:///tmp/0": "http://127.0.0.1:1/metrics",
        "w": "https://w/metrics",
    }


def test_two_scrapes_of_one_name_are_refused() -> None:
    flags = ("w=http://a/metrics", "x=http://b/metrics", "w=http://c/metrics", "http://d:1/e", "http://d:1/f")

    assert problems(*WORKER, "--key", "k", *(f"--scrape={source}" for source in flags)) == (
        "scrape 'w=http://c/metrics': 'w=http://a/metrics' is called 'w' too; NAME=URL gives it another name",
        "scrape 'http://d:1/f': 'http://d:1/e' is called 'd:1' too; NAME=URL gives it another name",
    )
    twice = 2 * ("--scrape=http://a/metrics",)
    assert len(problems(*WORKER, "--key", "k", *twice)) == 1


def test_flags_may_not_contradict_each_other_any_more_than_the_file() -> None:
    assert problems("--ping-after-s", "30", "--key", "k", *WORKER) == (
        "[gateway] ping_after_s = 30: must be below silent_client_s = 20, or no client has time to answer a ping",
    )


def test_a_hashed_key_is_a_hash_and_a_wrong_one_is_not_shown() -> None:
    hashed = "sha256:" + "0aF9" * 16
    assert read("--key", hashed, *WORKER).keys == (hashed,)

    (flag,) = problems("--key", "sha256:secret", *WORKER)
    (variable,) = problems(*WORKER, ASR_KEY="good,sha256:secret")
    allowed = 'must be a list, each item a text that starts with no space, or "sha256:" and 64 hexadecimal digits'
    assert (flag, variable) == (f"--key: {allowed}", f"ASR_KEY: {allowed}")


def test_files_need_a_folder_to_wait_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, nowhere = str(tmp_path), str(tmp_path / "nowhere")

    assert read("--spool-dir", there, "--key", "k", *WORKER).gateway.spool_dir == there
    (problem,) = problems("--spool-dir", nowhere, "--key", "k", *WORKER)
    assert problem == f'spool_dir "{nowhere}": there is no such folder'
    # Refused even to root, as a folder below one that it may not enter is to others.
    (problem,) = problems("--spool-dir", 300 * "a", "--key", "k", *WORKER)
    assert problem == f'spool_dir "{300 * "a"}": cannot be used: File name too long'
    monkeypatch.setattr("os.access", lambda *_: False)
    (problem,) = problems("--spool-dir", there, "--key", "k", *WORKER)
    assert problem == f'spool_dir "{there}": no files can be written there'
