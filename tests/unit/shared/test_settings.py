import argparse
import re

import pytest

from asr_cli.__main__ import COMMANDS, make_parser
from asr_gateway.config import make_parser as gateway_parser
from asr_worker.config import make_parser as worker_parser
from shared.allowed import Kind, Range
from shared.config import GatewayConfig, WorkerConfig
from shared.errors import ConfigError
from shared.settings import (
    CONFIG,
    LOG,
    SILENT,
    Option,
    add_options,
    chosen,
    config_path,
    known_variables,
    mistyped_variables,
    overridden,
    section_options,
)

WORKERS = Option(name="worker", kind=Kind(base=str, many=True), help="an endpoint, 100% of them")
GATEWAY = section_options(GatewayConfig, aliases={"host": ("--addr", "-a"), "port": ("-p",)})
OPTIONS = (CONFIG, LOG, SILENT, WORKERS, *GATEWAY)


def settings(flags: str = "", **environ: str) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="unit")
    add_options(parser, OPTIONS)
    return chosen(parser.parse_args(flags.split()), OPTIONS, environ)


def test_a_variable_that_looks_like_one_of_ours_is_asked_about() -> None:
    environ = {"ASR_PROT": "1", "ASR_MAX_SESSION": "1", "ASR_PORT": "1", "ASR_WHISPER_HOME": "1", "PROT": "1"}
    assert mistyped_variables(environ) == (
        "ASR_MAX_SESSION: no command knows this variable; did you mean ASR_MAX_SESSIONS?",
        "ASR_PROT: no command knows this variable; did you mean ASR_PORT?",
    )


def test_all_variables_of_all_commands_are_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal would break their names
    helps = [gateway_parser().format_help(), worker_parser().format_help()]
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            make_parser(command).parse_args([command, "--help"])
        helps.append(capsys.readouterr().out)
    named = set(re.findall(r"\[(ASR_\w+)\]", re.sub(r"\s+", " ", " ".join(helps)).replace("[ ", "[")))
    elsewhere = {"ASR_COMPILE", "ASR_BUILD_TIMESTAMP"} | {
        f"ASR_GIT_{what}" for what in ("BRANCH", "DESCRIBE", "HASH", "TIMESTAMP")
    }
    assert known_variables() == named | elsewhere


def test_nothing_given_is_nothing_chosen() -> None:
    assert settings(ASR_PORT="", PORT="3") == {}


def test_a_flag_wins_over_the_environment_and_both_over_the_file() -> None:
    file = GatewayConfig(port=1, host="file", max_sessions=7)

    values = settings("--port 3", ASR_PORT="2", ASR_HOST="environment")

    assert values == {"port": 3, "host": "environment"}
    assert overridden(file, values) == GatewayConfig(port=3, host="environment", max_sessions=7)


def test_settings_of_others_do_not_disturb_a_section() -> None:
    assert overridden(WorkerConfig(), {"port": 3, "drain_s": 1.5}) == WorkerConfig(drain_s=1.5)


def test_moshi_servers_flags_are_understood() -> None:
    assert settings("--addr 0.0.0.0 -p 8123 -l debug --silent") == {
        "host": "0.0.0.0",
        "port": 8123,
        "log": "debug",
        "silent": True,
    }


def test_a_list_takes_a_flag_for_each_item_or_commas() -> None:
    several = "tcp://a:1,tcp://b:2"

    assert settings("--worker tcp://c:3 --worker ipc:///d,e", ASR_WORKER=several) == {
        "worker": ("tcp://c:3", "ipc:///d,e")
    }
    assert settings(ASR_WORKER=several) == {"worker": ("tcp://a:1", "tcp://b:2")}


def test_a_switch_can_be_turned_off_again() -> None:
    assert settings("--no-silent", ASR_SILENT="yes") == {"silent": False}
    assert settings("--allow-no-keys") == {"allow_no_keys": True}


def test_all_that_is_wrong_is_told_with_its_source_and_what_is_allowed() -> None:
    with pytest.raises(ConfigError) as caught:
        settings("--port 70000", ASR_MAX_SESSIONS="many", ASR_LOG="loud", ASR_PORT="1")

    assert caught.value.problems == (
        'ASR_LOG=loud: must be one of "trace", "debug", "info", "warn", "warning", "error", "off"',
        "--port 70000: must be an integer from 0 to 65535",
        "ASR_MAX_SESSIONS=many: must be an integer from 1 to 2147483648",
    )


def test_every_key_of_our_tables_is_a_setting() -> None:
    options = {option.name: option for option in section_options(WorkerConfig, aliases={})}

    assert options["gateway_timeout_s"].flag == "--gateway-timeout-s"
    assert options["gateway_timeout_s"].variable == "ASR_GATEWAY_TIMEOUT_S"
    assert options["threads"].kind == Kind(base=int, limits=Range(1, 1024))
    assert set(options) == set(WorkerConfig.__dataclass_fields__)


@pytest.mark.parametrize("table", [GatewayConfig, WorkerConfig])
def test_every_key_of_our_tables_has_a_meaning(table: type) -> None:
    assert [
        option.name for option in section_options(table, aliases={}) if option.help.startswith(str(option.kind))
    ] == []


def test_help_names_meaning_variable_limits_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings("--help")

    said = " ".join(capsys.readouterr().out.split())
    assert "where it listens; 0: any free port (an integer from 0 to 65535; default 8080) [ASR_PORT]" in said
    assert "100% of them" in said


def test_a_command_without_a_configuration_says_how_to_give_one() -> None:
    assert str(config_path(settings(ASR_CONFIG="/etc/asr.toml"))) == "/etc/asr.toml"
    with pytest.raises(ConfigError, match="no configuration file: give --config FILE or set ASR_CONFIG"):
        config_path({})
