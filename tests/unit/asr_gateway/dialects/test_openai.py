import json
from typing import Any

import pytest

from asr_gateway.dialects.openai import Answer, Asked, UnknownModelError, answer, error, models, read_form
from shared.errors import BadAudioError, BadMessageError, NoFreeSlotError
from shared.messages import EventKind, StepEvent
from shared.units import Epoch, SessionId

MODULES = ("asr", "asr-en")


def heard(*words: tuple[str, float, float]) -> list[StepEvent]:
    events = []
    for text, start_s, end_s in words:
        for kind, said, time_s in ((EventKind.WORD, text, start_s), (EventKind.END_WORD, "", end_s)):
            events.append(StepEvent(session=SessionId(1), epoch=Epoch(1), kind=kind, text=said, time_s=time_s, id=None))
    return events


HELLO_WORLD = heard(("hello", 0.48, 0.8), ("wörld", 0.88, 1.2), ("again", 3.0, 3.4))


def asked(**changes: Any) -> Asked:
    return Asked(**{"module": "asr", "format": "json", "granularities": ("segment",), "language": "en"} | changes)


def test_a_form_says_which_module_and_which_shape() -> None:
    form = {
        "model": ["asr-en"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["word", "segment"],
        "language": ["de"],
    }
    assert read_form(form, MODULES) == asked(
        module="asr-en", format="verbose_json", granularities=("word", "segment"), language="de"
    )


def test_fields_that_change_nothing_here_are_passed_over() -> None:
    form = {"model": ["asr"], "prompt": ["names"], "temperature": ["0.3"], "stream": ["false"], "new": ["x"]}
    assert read_form(form, MODULES) == asked(language="unknown")


def test_the_only_module_needs_no_name() -> None:
    assert read_form({}, ("asr",)).module == "asr"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({}, "model='': not served here; allowed: asr, asr-en"),
        ({"model": ["whisper-1"]}, "model='whisper-1': not served here; allowed: asr, asr-en"),
    ],
)
def test_a_model_that_is_not_served_is_refused_with_those_that_are(form: dict[str, list[str]], said: str) -> None:
    with pytest.raises(UnknownModelError) as refused:
        read_form(form, MODULES)
    assert (str(refused.value), refused.value.http_status) == (said, 404)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"response_format": ["xml"]}, "response_format='xml': allowed are json, text, srt, vtt, verbose_json"),
        ({"stream": ["true"]}, "stream='true': the answer to a file comes in one piece"),
        ({"timestamp_granularities[]": ["word"]}, "needs response_format verbose_json, not json"),
        (
            {"response_format": ["verbose_json"], "timestamp_granularities[]": ["phone"]},
            "timestamp_granularities[]='phone': allowed are word, segment",
        ),
        ({"model": ["asr", "asr"]}, "model: given 2 times; once is allowed"),
        ({"language": ["x" * 99, "y"]}, "language: given 2 times"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(form: dict[str, list[str]], said: str) -> None:
    with pytest.raises(BadMessageError) as refused:
        read_form({"model": ["asr"]} | form, MODULES)
    assert said in str(refused.value)


def test_text_alone() -> None:
    assert answer(asked(format="text"), HELLO_WORLD, 4.0) == Answer("hello wörld again\n", "text/plain")


def test_json_has_the_text_and_what_it_cost() -> None:
    said = json.loads(answer(asked(), HELLO_WORLD, 4.01).text)
    assert said == {"text": "hello wörld again", "usage": {"type": "duration", "seconds": 5}}


def test_subtitles() -> None:
    srt = answer(asked(format="srt"), HELLO_WORLD, 4.0).text
    assert srt.startswith("1\n00:00:00,480 --> 00:00:01,480\nhello wörld\n\n2\n00:00:03,000 --> ")
    vtt = answer(asked(format="vtt"), HELLO_WORLD, 4.0)
    assert vtt.text.startswith("WEBVTT\n\n00:00:00.480 --> 00:00:01.480\nhello wörld\n")
    assert vtt.content_type == "text/vtt"


def test_verbose_json_has_segments_and_words_where_asked_for() -> None:
    said = json.loads(answer(asked(format="verbose_json", granularities=("word", "segment")), HELLO_WORLD, 4.0).text)
    assert (said["task"], said["language"], said["duration"]) == ("transcribe", "en", 4.0)
    assert said["words"][1] == {"word": "wörld", "start": 0.88, "end": 1.2}
    assert [(s["id"], s["start"], s["end"], s["text"]) for s in said["segments"]] == [
        (0, 0.48, 1.2, "hello wörld"),
        (1, 3.0, 3.4, "again"),
    ]
    assert "words" not in json.loads(answer(asked(format="verbose_json"), HELLO_WORLD, 4.0).text)


def test_the_end_of_a_word_that_was_never_told_is_guessed() -> None:
    said = json.loads(answer(asked(format="verbose_json", granularities=("word",)), HELLO_WORLD[:1], 1.0).text)
    assert said["words"] == [{"word": "hello", "start": 0.48, "end": pytest.approx(0.88)}]


@pytest.mark.parametrize("form", ["json", "verbose_json", "text", "srt", "vtt"])
def test_silence_has_an_answer_too(form: str) -> None:
    text = answer(asked(format=form), [], 2.0).text
    assert "hello" not in text
    assert form not in ("json", "verbose_json") or json.loads(text)["text"] == ""


def test_an_error_has_a_message_a_type_and_our_code() -> None:
    mistake, fault = json.loads(error(BadAudioError("no audio")).text), json.loads(error(NoFreeSlotError()).text)
    assert mistake["error"] == {
        "message": "no audio", "type": "invalid_request_error", "param": None, "code": "bad_audio",
    }  # fmt: skip
    assert (fault["error"]["type"], fault["error"]["code"]) == ("server_error", "no_free_slot")


def test_modules_are_models() -> None:
    said = json.loads(models(MODULES).text)
    assert [(model["id"], model["object"]) for model in said["data"]] == [("asr", "model"), ("asr-en", "model")]
