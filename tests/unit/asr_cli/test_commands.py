import errno
import fcntl
import io
import json
import os
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path

import msgpack
import numpy as np
import pytest
import soundfile

import shared
from asr_cli import serve
from asr_cli.__main__ import COMMANDS, main
from asr_cli.audio_file import AudioFile
from asr_cli.live_client import encode_audio, session_url
from asr_cli.serve import demo_config
from asr_cli.transcribe import write_whole
from asr_cli.transcript_output import LiveWords, StatusLine, cut, render_json, render_text
from asr_cli.usage import UsageError
from shared.transcript import TimedWord

DEMO = demo_config()
EMPTY = Path(shared.__file__).with_name("py.typed")
LONG_NAME = 300 * "a"
"""Stands for what the system refuses to look at, as it does a folder that one may not enter (but for root)."""


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_answers_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: asr {command}" in capsys.readouterr().out


def test_the_list_of_commands_loads_no_heavy_library() -> None:
    program = (
        "import sys; from asr_cli.__main__ import make_parser; make_parser('').format_help(); "
        "print([name for name in ('aiohttp', 'numpy', 'torch', 'zmq') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe", "/no/such/file.wav"], "/no/such/file.wav: no such file"),
        (["transcribe", "/"], "/: is a folder"),
        (["transcribe", str(EMPTY)], f"{EMPTY}: is empty"),
        (["transcribe", LONG_NAME], f"{LONG_NAME}: cannot be read: File name too long"),
        (["fetch", LONG_NAME], f"{LONG_NAME}: cannot be read: File name too long"),
        (["transcribe", __file__], f"{__file__}: no audio file that can be read; WAV, FLAC, Ogg and MP3 can"),
        (["serve", "--config", "/no/such/config.toml"], "/no/such/config.toml"),
        (["doctor", "--config", "/no/such/config.toml"], "/no/such/config.toml"),
        (["serve", "--port", "x"], "--port x: must be an integer from 0 to 65535"),
        (["serve", "-a", "two..dots", "-p", "8090"], "port 8090 of two..dots: "),
        (["serve", "--host", "two..dots"], "port 8080 of two..dots: "),
        (["serve", "--workers", "0"], "--workers 0: must be an integer from 1 to 1024"),
        (["serve", "--model", "x"], '--model x: must be "fake"'),
    ],
)
def test_what_the_user_did_wrong_is_said_without_a_traceback(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_file_that_only_its_name_calls_an_mp3_is_no_audio_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.mp3"
    path.write_bytes(b"<html>" + bytes(range(255)) * 40)
    assert main(["transcribe", str(path)]) == 1
    assert f"{path}: no audio file that can be read" in capsys.readouterr().err


def test_a_service_without_keys_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "make_plan", lambda *_: pytest.fail("it goes on"))
    path = tmp_path / "open.toml"
    path.write_text(DEMO.read_text().replace('authorized_ids = ["public_token"]', ""))
    assert main(["serve", "--config", str(path)]) == 1
    assert "no keys: set authorized_ids" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("closed", "arguments", "status", "out", "err"),
    [
        (">&-", ["--help"], 1, "", "asr: standard output: cannot be written: Bad file descriptor\n"),
        (">&-", ["validate", "FILE"], 1, "", "asr: standard output: cannot be written: Bad file descriptor\n"),
        ("2>&-", ["validate", "/no/such/file"], 1, "", ""),
        (">&- 2>&-", ["validate", "FILE"], 1, "", ""),
        ("<&- >&- 2>&-", ["transcribe", "-"], 1, "", ""),
    ],
)
def test_a_stream_that_was_closed_before_the_start_is_as_one_that_cannot_be_used(
    *, closed: str, arguments: list[str], status: int, out: str, err: str
) -> None:
    words = [str(DEMO) if word == "FILE" else word for word in arguments]
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-m", "asr_cli", *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, out, err)


@pytest.mark.parametrize("rtf", ["0", "-1", "nan", "inf", "fast"])
def test_a_speed_is_above_zero(rtf: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", "a.wav", f"--rtf={rtf}"])
    assert ended.value.code == 2
    assert f"argument --rtf: must be a number above 0, not {rtf}" in capsys.readouterr().err


def test_a_service_that_is_not_there_is_said_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(2400, np.float32), 24_000)
    assert main(["transcribe", str(path), "--url", "http://127.0.0.1:1"]) == 1
    assert "nobody answers at 127.0.0.1:1" in capsys.readouterr().err


def test_a_name_that_can_be_none_is_said_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(2400, np.float32), 24_000)
    assert main(["transcribe", str(path), "--url", "http://two..dots"]) == 1
    assert "no service can be reached there" in capsys.readouterr().err


def test_a_key_of_two_lines_is_refused_and_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(2400, np.float32), 24_000)
    assert main(["transcribe", str(path), "--key", "secret\n"]) == 1
    assert capsys.readouterr().err == "asr: --key: must be a text in one line, as it is sent in a header\n"


def test_a_folder_for_results_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(2400, np.float32), 24_000)
    assert main(["transcribe", "--output-dir", str(path), str(path)]) == 1
    assert capsys.readouterr().err == f"asr: {path}: cannot be written: File exists\n"


def test_no_result_overwrites_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.wav", tmp_path / "a.flac"]
    for path in paths:
        soundfile.write(path, np.zeros(2400, np.float32), 24_000)
    assert main(["transcribe", "--output-dir", str(tmp_path / "out"), *map(str, paths)]) == 1
    assert "would be written to the same file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_port_that_somebody_listens_on_is_not_served(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--model", "fake", "--port", str(port)]) == 1
    reason = "Address already in use; --port and --host choose another place"
    assert capsys.readouterr().err == f"asr: port {port} of 127.0.0.1: {reason}\n"


def test_a_setting_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASR_CONFIG", "/no/such/config.toml")
    assert main(["serve"]) == 1
    assert "/no/such/config.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/api/asr-streaming"),
        ("127.0.0.1:8080/", "ws://127.0.0.1:8080/api/asr-streaming"),
        ("https://asr.example/stt?x=1", "wss://asr.example/stt?x=1"),
        ("wss://asr.example", "wss://asr.example/api/asr-streaming"),
    ],
)
def test_an_address_gets_the_scheme_and_the_usual_path(url: str, expected: str) -> None:
    assert session_url(url, "ws") == expected


@pytest.mark.parametrize(
    "url", ["ftp://host", "http://", "", "http://[::1", "http://host:99999", "http://host:0", "http://host:port"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no address of a service"):
        session_url(url, "ws")


@pytest.mark.parametrize("n_samples", [0, 3, 15, 16, 1920, 70_000])
def test_audio_messages_are_what_msgpack_makes_of_a_list(n_samples: int) -> None:
    pcm = np.linspace(-1.0, 1.0, n_samples, dtype=np.float32)
    expected = msgpack.packb({"type": "Audio", "pcm": pcm.tolist()}, use_single_float=True)
    assert encode_audio(pcm) == expected


def test_a_file_is_resampled_and_mixed_to_mono(tmp_path: Path) -> None:
    path = tmp_path / "stereo.flac"
    time_s = np.arange(44_100 * 2) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_s)
    soundfile.write(path, np.stack([tone, np.zeros_like(tone)], axis=1), 44_100)
    audio = AudioFile(path)
    pcm = np.concatenate(list(audio.pieces()))
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 24_000)
    assert audio.duration_s == pytest.approx(2.0)
    assert len(pcm) == 48_000
    assert np.abs(pcm - expected)[240:-240].max() < 1e-3


def without_length(path: Path) -> None:
    """Take the length out of a FLAC's header, as an encoder does that cannot go back to write it there."""
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)


def test_a_flac_that_does_not_say_its_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(36_000), 24_000)
    without_length(path)

    audio = AudioFile(path)

    assert audio.duration_s is None
    assert sum(map(len, audio.pieces())) == 36_000
    assert audio.duration_s == 1.5


def test_a_damaged_file_is_named_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(1).uniform(-1, 1, 72_000), 24_000)
    path.write_bytes(path.read_bytes()[:110_000])

    audio = AudioFile(path)

    with pytest.raises(UsageError, match=r"a\.flac: the audio is damaged after \d\.\d s: "):
        list(audio.pieces())


def test_a_file_that_is_no_audio_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("no audio")
    with pytest.raises(UsageError, match=r"a\.wav"):
        AudioFile(path)


def test_words_are_printed_as_they_come() -> None:
    stream = io.StringIO()
    view = LiveWords(stream)
    view.show({"type": "Word", "text": "one", "start_time": 0.0})
    view.show({"type": "EndWord", "stop_time": 0.3})
    view.show({"type": "Word", "text": "two", "start_time": 0.4})
    view.end(1.0)
    assert stream.getvalue() == "one two\n"


def test_a_word_does_nothing_to_the_terminal() -> None:
    stream = io.StringIO()
    LiveWords(stream).show({"type": "Word", "text": "\x1b]0;owned\x07\x1b[2Jé", "start_time": 0.0})
    assert stream.getvalue() == " ]0;owned  [2Jé"


def test_what_goes_wrong_amid_the_words_begins_a_line_of_its_own() -> None:
    for kind, shown in (("Step", ""), ("Word", "one\n")):
        stream = io.StringIO()
        view = LiveWords(stream)
        view.show({"type": kind, "text": "one", "start_time": 0.0, "step_idx": 1})
        view.break_off()
        assert stream.getvalue() == shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_it_is() -> None:
    stream = Terminal()
    view = StatusLine(stream, name="a.wav", duration_s=2.0)
    view.show({"type": "Word", "text": "one", "start_time": 0.0})
    view.show({"type": "Step", "step_idx": 13, "prs": [], "buffered_pcm": 0})
    view.end(0.5)
    assert stream.getvalue() == ("\ra.wav   0% one\x1b[K\ra.wav  52% one\x1b[K\ra.wav: 2.0 s of audio in 0.5 s\x1b[K\n")


def test_what_goes_wrong_begins_a_line_of_its_own_on_a_terminal_too() -> None:
    stream = Terminal()
    view = StatusLine(stream, name="a.wav", duration_s=2.0)
    view.break_off()
    assert stream.getvalue() == ""
    view.show({"type": "Word", "text": "one", "start_time": 0.0})
    view.break_off()
    assert stream.getvalue() == "\ra.wav   0% one\x1b[K\n"


@pytest.mark.parametrize(("columns", "n_shown"), [(20, 19), (200, 78), (0, 78)])
def test_a_narrow_terminal_gets_a_line_that_it_need_not_break(columns: int, n_shown: int) -> None:
    terminal, ours = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    with os.fdopen(ours, "w") as stream, os.fdopen(terminal, "rb") as screen:
        StatusLine(stream, name=100 * "a", duration_s=2.0).end(0.5)
        assert screen.readline() == f"\r{n_shown * 'a'}\x1b[K\r\n".encode()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("a.wav   0% one two three", "a.wav   0% one two "),
        ("a.wav   0% 日本語日本語", "a.wav   0% 日本語日"),
        ("a\u0301.wav   0% one two three", "a\u0301.wav   0% one two "),
        ("a\nb\x1b.wav   0%", "a b .wav   0%"),
    ],
)
def test_a_line_takes_no_more_columns_than_it_may(line: str, shown: str) -> None:
    assert cut(line, 19) == shown


def test_of_audio_of_unknown_length_a_terminal_shows_the_seconds() -> None:
    stream = Terminal()
    view = StatusLine(stream, name="a.flac", duration_s=None)
    view.show({"type": "Step", "step_idx": 25, "prs": [], "buffered_pcm": 0})
    view.end(0.5)
    assert stream.getvalue() == "\ra.flac 2 s \x1b[K\ra.flac: all of the audio in 0.5 s\x1b[K\n"


def test_no_progress_is_written_to_a_file() -> None:
    stream = io.StringIO()
    view = StatusLine(stream, name="a.wav", duration_s=2.0)
    view.show({"type": "Word", "text": "one", "start_time": 0.0})
    view.end(0.5)
    assert stream.getvalue() == ""


def test_json_holds_the_words_and_their_times() -> None:
    words = [TimedWord("ja", 0.5, 0.8), TimedWord("ö", 1.0, None)]
    assert json.loads(render_json(Path("a.wav"), 2.0, words)) == {
        "file": "a.wav",
        "duration": 2.0,
        "text": "ja ö",
        "words": [{"text": "ja", "start": 0.5, "end": 0.8}, {"text": "ö", "start": 1.0, "end": None}],
    }
    assert json.loads(render_json(Path("a.wav"), None, words))["duration"] is None
    assert render_text(Path("a.wav"), 2.0, words) == "ja ö\n"


def test_a_result_may_have_as_long_a_name_as_the_system_allows(tmp_path: Path) -> None:
    result = tmp_path / ("x" * 251 + ".txt")
    write_whole(result, "words\n")
    assert result.read_text() == "words\n"


def test_a_result_that_cannot_be_written_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tmp_path / "a.txt"
    write_whole(result, "first\n")
    write_whole(result, "second\n")

    def full(_self: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(result, "third\n")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "second\n"}
