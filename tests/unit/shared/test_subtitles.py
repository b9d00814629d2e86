import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shared.subtitles import LINE_CHARS, Cue, break_lines, make_cues, to_srt, to_vtt
from shared.transcript import TimedWord, plain_text, timed_words


def test_words_get_the_end_that_follows_them() -> None:
    messages: list[dict[str, object]] = [
        {"type": "Ready"},
        {"type": "Word", "text": "one", "start_time": 0.5},
        {"type": "Step", "step_idx": 9, "prs": [], "buffered_pcm": 0},
        {"type": "EndWord", "stop_time": 0.8},
        {"type": "Word", "text": "two", "start_time": 1.0},
        {"type": "EndWord", "stop_time": 1.2},
        {"type": "Word", "text": "three", "start_time": 1.2},
    ]
    assert timed_words(messages) == [
        TimedWord("one", 0.5, 0.8),
        TimedWord("two", 1.0, 1.2),
        TimedWord("three", 1.2, None),
    ]


def test_words_of_one_stretch_end_together() -> None:
    messages: list[dict[str, object]] = [
        {"type": "Word", "text": "to", "start_time": 0.5},
        {"type": "Word", "text": "day", "start_time": 0.5},
        {"type": "EndWord", "stop_time": 0.8},
    ]
    assert timed_words(messages) == [TimedWord("to", 0.5, 0.8), TimedWord("day", 0.5, 0.8)]


def test_an_end_without_a_word_changes_nothing() -> None:
    assert timed_words([{"type": "EndWord", "stop_time": 0.8}]) == []


def test_a_pause_and_a_full_stop_begin_a_new_cue() -> None:
    words = [
        TimedWord("Hello", 0.0, 0.4),
        TimedWord("there.", 0.4, 0.8),
        TimedWord("Well", 0.9, 1.2),
        TimedWord("yes", 2.4, 2.6),
    ]
    assert make_cues(words) == [
        Cue(0.0, 0.9, ("Hello there.",)),
        Cue(0.9, 1.9, ("Well",)),
        Cue(2.4, 3.4, ("yes",)),
    ]


def test_words_of_one_stretch_stay_in_one_cue() -> None:
    words = [TimedWord("Yes.", 0.0, 0.4), TimedWord("No", 0.0, 0.4)]
    assert make_cues(words) == [Cue(0.0, 1.0, ("Yes. No",))]


def test_a_cue_lasts_six_seconds_at_most() -> None:
    words = [TimedWord("slow", float(second), second + 0.9) for second in range(8)]
    assert [(cue.start_s, cue.end_s) for cue in make_cues(words)] == [(0.0, 5.9), (6.0, 7.9)]


def test_a_cue_holds_two_lines_at_most() -> None:
    words = [TimedWord("abcdefghij", index / 10, index / 10 + 0.1) for index in range(9)]
    assert [cue.lines for cue in make_cues(words)] == [
        ("abcdefghij abcdefghij abcdefghij", "abcdefghij abcdefghij abcdefghij"),
        ("abcdefghij abcdefghij abcdefghij",),
    ]


def test_two_lines_are_about_equally_long() -> None:
    text = "the quick brown fox jumps over the lazy dog and runs away"
    assert break_lines(text) == ("the quick brown fox jumps over", "the lazy dog and runs away")
    assert break_lines("short enough") == ("short enough",)
    assert break_lines("x" * 60) == ("x" * 60,)


def test_srt_is_numbered_and_has_commas() -> None:
    cues = [Cue(0.0, 1.5, ("a", "b")), Cue(3661.25, 3662.0, ("c",))]
    assert to_srt(cues) == "1\n00:00:00,000 --> 00:00:01,500\na\nb\n\n2\n01:01:01,250 --> 01:01:02,000\nc\n"


def test_vtt_has_a_header_and_no_mark_up() -> None:
    assert to_vtt([Cue(0.0, 1.5, ("a < b & c",))]) == ("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt; b &amp; c\n")


def test_no_words_make_no_cues() -> None:
    assert make_cues([]) == []
    assert to_srt([]) == ""


words_of_a_speech = st.lists(
    st.tuples(st.from_regex(r"[a-z]{1,12}[.?]?", fullmatch=True), st.floats(0.0, 3.0), st.floats(0.05, 1.0)),
    max_size=60,
)


@given(words_of_a_speech)
def test_cues_hold_every_word_once_in_order_and_never_overlap(speech: list[tuple[str, float, float]]) -> None:
    words, now = [], 0.0
    for text, gap, length in speech:
        words.append(TimedWord(text, now + gap, now + gap + length))
        now += gap + length
    cues = make_cues(words)
    assert " ".join(line for cue in cues for line in cue.lines) == plain_text(words)
    assert all(cue.start_s < cue.end_s for cue in cues)
    assert all(first.end_s <= second.start_s for first, second in pairwise(cues))
    assert all(len(line) <= LINE_CHARS for cue in cues for line in cue.lines)
    assert len(re.findall("-->", to_srt(cues))) == len(cues)
