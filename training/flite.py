"""flite through its libraries: five speakers, with the exact end of every phone.

The program can print phones but not which word they belong to; the library's utterance tree tells both.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from training import phones
from training.espeak import SynthesisError
from training.speech import Sound, Span, Speech

_Pointer: Final = ctypes.c_void_p
_PROTOTYPES: Final[tuple[tuple[str, Any, tuple[Any, ...]], ...]] = (
    ("flite_synth_text", _Pointer, (ctypes.c_char_p, _Pointer)),
    ("utt_relation", _Pointer, (_Pointer, ctypes.c_char_p)),
    ("relation_head", _Pointer, (_Pointer,)),
    ("item_next", _Pointer, (_Pointer,)),
    ("ffeature_string", ctypes.c_char_p, (_Pointer, ctypes.c_char_p)),
    ("ffeature_float", ctypes.c_float, (_Pointer, ctypes.c_char_p)),
    ("delete_utterance", None, (_Pointer,)),
    ("feat_set_float", None, (_Pointer, ctypes.c_char_p, ctypes.c_float)),
)


class _Wave(ctypes.Structure):
    _fields_: ClassVar[list[Any]] = [
        ("type", ctypes.c_char_p),
        ("rate_hz", ctypes.c_int),
        ("n_samples", ctypes.c_int),
        ("n_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


class _Voice(ctypes.Structure):
    """The head of flite's voice: all that is needed to reach its settings."""

    _fields_: ClassVar[list[Any]] = [("name", ctypes.c_char_p), ("features", _Pointer)]


@dataclass(frozen=True, kw_only=True)
class FliteVoice:
    """A speaker (awb, kal, kal16, rms, slt) and how he or she speaks.

    ``stretch`` above 1 is slower; ``pitch_hz`` is the mean pitch, 0 keeps the speaker's own.
    """

    speaker: str
    stretch: float = 1.0
    pitch_hz: float = 0.0
    pitch_spread_hz: float = 0.0


class Flite:
    """The library and the speakers that were asked for, loaded once."""

    def __init__(self, speakers: Sequence[str]) -> None:
        self._lib = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
        for name in ("libflite_cmulex.so.1", "libflite_usenglish.so.1"):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        for name, result, arguments in _PROTOTYPES:
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments
        self._lib.utt_wave.restype = ctypes.POINTER(_Wave)
        self._lib.utt_wave.argtypes = (_Pointer,)
        self._lib.flite_init()
        self._voices = {speaker: self._register(speaker) for speaker in speakers}

    @staticmethod
    def _register(speaker: str) -> int:
        library = ctypes.CDLL(f"libflite_cmu_us_{speaker}.so.1", mode=ctypes.RTLD_GLOBAL)
        register = getattr(library, f"register_cmu_us_{speaker}")
        register.restype, register.argtypes = _Pointer, (ctypes.c_char_p,)
        return int(register(None))

    def speak(self, words: Sequence[str], voice: FliteVoice) -> Speech:
        """Speak the words as one phrase.

        Raises:
            SynthesisError: flite split or merged a word so that its time is lost.
        """
        pointer = self._voices[voice.speaker]
        features = ctypes.cast(pointer, ctypes.POINTER(_Voice)).contents.features
        self._lib.feat_set_float(features, b"duration_stretch", voice.stretch)
        if voice.pitch_hz > 0:
            self._lib.feat_set_float(features, b"int_f0_target_mean", voice.pitch_hz)
            self._lib.feat_set_float(features, b"int_f0_target_stddev", voice.pitch_spread_hz)
        utterance = self._lib.flite_synth_text(" ".join(words).encode(), pointer)
        try:
            wave = self._lib.utt_wave(utterance).contents
            pcm = np.ctypeslib.as_array(wave.samples, (wave.n_samples,)).astype(np.float32) / 32768.0
            spans, sounds = self._times(utterance, words)
            return Speech(pcm=pcm, rate_hz=int(wave.rate_hz), words=spans, sounds=sounds)
        finally:
            self._lib.delete_utterance(utterance)

    def _times(self, utterance: int, words: Sequence[str]) -> tuple[tuple[Span, ...], tuple[Sound, ...]]:
        sounds: list[Sound] = []
        spans: list[Span] = []
        item = self._lib.relation_head(self._lib.utt_relation(utterance, b"Segment"))
        start_s, last_word = 0.0, ""
        while item:
            end_s = float(self._lib.ffeature_float(item, b"end"))
            name = self._lib.ffeature_string(item, b"name").decode()
            word = self._lib.ffeature_string(item, b"R:SylStructure.parent.parent.name").decode()
            sounds.append(Sound(phone=phones.from_arpabet(name), start_s=start_s, end_s=end_s))
            if word != "0":
                # The word's first phone has no sibling before it: that tells "five five" from one "five".
                before = self._lib.ffeature_string(item, b"R:SylStructure.p.name").decode()
                syllable = self._lib.ffeature_string(item, b"R:SylStructure.parent.p.daughter1.name").decode()
                if before == "0" and syllable == "0":
                    spans.append(Span(text=word, start_s=start_s, end_s=end_s))
                elif spans and word == last_word:
                    spans[-1] = Span(text=word, start_s=spans[-1].start_s, end_s=end_s)
            start_s, last_word = end_s, word
            item = self._lib.item_next(item)
        if [span.text for span in spans] != list(words):
            message = f"flite spoke {[span.text for span in spans]} for {list(words)}"
            raise SynthesisError(message)
        return tuple(spans), tuple(sounds)
