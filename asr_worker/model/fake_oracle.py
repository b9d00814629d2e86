"""What the fake model will say, computed from the audio without a worker: the yardstick of tests and client developers.

    events = expected_events(pcm, settings, flush=True)      # WordSaid(text, start_s), WordEnded(stop_s), ...

Written for one stream, frame by frame and without any cleverness, so that it can be trusted to judge the batched model
and everything between a client's microphone and it. Needs numpy only.
"""

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.stream import EXTRA_SILENCE_FRAMES
from asr_worker.core.words import END_OF_WORD, PADDING, WordEnded, WordEvent, WordSaid
from asr_worker.model.fake import FORGOTTEN_STEPS, LONGEST_WORD_STEPS, MULTIPLIER
from asr_worker.model.fake_speech import FIRST_PIECE, PAD_CODE, VOICED_LEVEL, FakeSettings, digest, encode, mix
from shared.units import FRAME_SAMPLES, SAMPLE_RATE


def expected_events(
    pcm: NDArray[np.float32],
    settings: FakeSettings | None = None,
    *,
    flush: bool = False,
    pad_samples: int = 0,
    prefix_frames: int = 0,
) -> list[WordEvent]:
    """Return the words and ends that a session with the frames ``pcm`` ``[n, 1920]`` must be sent, in order.

    Args:
        pcm: the frames as the client sent them, silence that it sent itself included.
        settings: those of the model; the defaults of ``asr-worker --model fake`` if None.
        flush: whether a flush (or the end of a POST) follows the audio.
        pad_samples: zeros at the end of the last frame that the gateway added for the flush.
        prefix_frames: silence that the server feeds first.
    """
    transcript = FakeTranscript(settings or FakeSettings(), prefix_frames=prefix_frames)
    events = transcript.feed(pcm)
    return events + transcript.flush(pad_samples) if flush else events


class FakeTranscript:
    """One session with the fake model, for scripts of audio, flushes and resets in any order."""

    def __init__(self, settings: FakeSettings, *, prefix_frames: int = 0) -> None:
        self._settings = settings
        self._n_frames = 0
        self._silences: list[tuple[int, int, int]] = []  # (first frame, frames, padding before it)
        self._restart_model()
        self._feed_silence(prefix_frames)

    def feed(self, pcm: NDArray[np.float32]) -> list[WordEvent]:
        """Step the frames ``pcm`` ``[n, 1920]`` and return what is said."""
        return [event for codes in encode(pcm, self._settings.n_codebooks) for event in self._step(codes)]

    def flush(self, pad_samples: int = 0) -> list[WordEvent]:
        """Step the silence of a flush and return what is said."""
        return self._feed_silence(self._settings.delay_frames, pad_samples, EXTRA_SILENCE_FRAMES)

    def reset(self) -> None:
        """Forget all but the time, as a Reset does."""
        last_end_s = self._time_s(self._n_frames)
        self._restart_model()
        self._last_end_s = last_end_s

    def _restart_model(self) -> None:
        self._window: list[tuple[int, bool, int]] = []  # (digest, voiced, token fed) of each step
        self._text = self._settings.start_token
        self._codes = np.full(self._settings.n_codebooks, PAD_CODE, np.int64)
        self._pieces: list[int] = []
        self._is_said = False
        self._last_end_s = 0.0
        self._n_steps = 0

    def _feed_silence(self, n_frames: int, pad_samples: int = 0, n_extra: int = 0) -> list[WordEvent]:
        codes = encode(np.zeros((1, FRAME_SAMPLES), np.float32), self._settings.n_codebooks)[0]
        start = self._n_frames
        self._silences.append((start, n_frames + n_extra, pad_samples))
        events = [event for _ in range(n_frames) for event in self._step(codes)]
        while n_extra and (self._pieces or self._is_said):
            events += self._step(codes)
            n_extra -= 1
        self._silences[-1] = (start, self._n_frames - start, pad_samples)
        return events

    def _time_s(self, frame: int) -> float:
        samples = frame * FRAME_SAMPLES
        for start, n_frames, pad_samples in self._silences:
            if frame >= start:
                samples -= pad_samples + FRAME_SAMPLES * min(n_frames, frame - start)
        return samples / SAMPLE_RATE

    def _step(self, codes: NDArray[np.int64]) -> list[WordEvent]:
        fed = int(digest(self._codes[None], np.array([self._text]))[0])
        is_voiced = VOICED_LEVEL <= self._codes[0] < PAD_CODE
        self._window = [*self._window, (fed, bool(is_voiced), self._text)][-self._settings.context_frames :]
        self._codes = codes
        self._text = self._next_token()
        self._n_steps += 1
        self._n_frames += 1
        return self._hear(self._text) if self._n_steps >= self._settings.delay_frames else []

    def _next_token(self) -> int:
        rolled = sum(fed * pow(MULTIPLIER, age, 1 << 64) for age, (fed, _, _) in enumerate(reversed(self._window)))
        draw = int(mix(np.array([rolled % (1 << 64)], np.uint64))[0])
        is_speech = self._was_voiced(0)
        recent = [token for _, _, token in reversed(self._window[-FORGOTTEN_STEPS:])]
        if END_OF_WORD not in recent or not self._was_voiced(1 + recent.index(END_OF_WORD)):
            return END_OF_WORD if is_speech else PADDING
        match recent.index(END_OF_WORD):
            case 0:
                return FIRST_PIECE + draw % self._settings.n_first
            case 1:
                has_next = self._settings.n_next and draw < 1 << 63
                return FIRST_PIECE + self._settings.n_first + draw % self._settings.n_next if has_next else PADDING
            case since:
                is_cut = draw < 1 << 62 or since >= LONGEST_WORD_STEPS
                return END_OF_WORD if is_cut or not is_speech else PADDING

    def _was_voiced(self, steps_ago: int) -> bool:
        """Return whether the frame was speech that the step so many ago decided about."""
        age = self._settings.delay_frames - 2 + steps_ago
        return age < len(self._window) and self._window[-1 - age][1]

    def _hear(self, token: int) -> list[WordEvent]:
        events: list[WordEvent] = []
        if token not in (END_OF_WORD, PADDING):
            self._pieces.append(token)
        elif self._pieces:
            events.append(WordSaid(self._settings.text_of(self._pieces), self._last_end_s))
            self._pieces, self._is_said = [], True
        if token == END_OF_WORD:
            time_s = self._time_s(self._n_frames - self._settings.delay_frames)
            if self._is_said:
                events.append(WordEnded(time_s))
                self._is_said = False
            self._last_end_s = time_s
        return events
