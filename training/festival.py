"""Festival: the synthesiser that is never trained on. One process speaks a whole list of phrases.

Its voices here: kal and ked (American diphones), slt (a hidden Markov model of a speaker that flite has too), and one
Italian and one Czech voice for speech that is not English at all.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import soundfile

from training.espeak import SynthesisError
from training.speech import Span, Speech

VOICES: Final = {
    "kal": "voice_kal_diphone",
    "ked": "voice_ked_diphone",
    "slt": "voice_cmu_us_slt_arctic_hts",
    "italian": "voice_lp_diphone",
    "czech": "voice_czech_dita",
}
_DEADLINE_S: Final = 600.0
_SPEAK: Final = """
(define (speak number text stretch)
  (Parameter.set 'Duration_Stretch stretch)
  (let ((utt (utt.synth (eval (list 'Utterance 'Text text)))))
    (utt.save.wave utt (string-append "%(folder)s/" (string-append number ".wav")) 'riff)
    (format t "phrase %%s\\n" number)
    (mapcar (lambda (w) (format t "%%s %%f %%f\\n" (item.name w) (item.feat w "word_start") (item.feat w "word_end")))
            (utt.relation.items utt 'Word))))
"""


def speak_all(phrases: Sequence[tuple[Sequence[str], float]], speaker: str) -> list[Speech | None]:
    """Speak phrases given as (words, stretch of durations); None where Festival split or merged a word.

    Raises:
        SynthesisError: Festival or the voice is missing, or it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"({VOICES[speaker]})", _SPEAK % {"folder": folder}]
        lines += [
            f'(speak "{number}" "{" ".join(words)}" {stretch:.3f})' for number, (words, stretch) in enumerate(phrases)
        ]
        script = Path(folder) / "script.scm"
        script.write_text("\n".join(lines), encoding="utf-8")
        try:
            done = subprocess.run(  # noqa: S603 - our own script
                ["festival", "-b", str(script)],  # noqa: S607 - wherever the package manager put it
                capture_output=True,
                text=True,
                timeout=_DEADLINE_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            message = f"festival with {VOICES[speaker]}: {error}"
            raise SynthesisError(message) from error
        times = _parse(done.stdout, len(phrases))
        return [
            _speech(Path(folder) / f"{number}.wav", words, times[number]) for number, (words, _) in enumerate(phrases)
        ]


def _parse(output: str, n_phrases: int) -> list[list[Span]]:
    found: list[list[Span]] = [[] for _ in range(n_phrases)]
    current = -1
    for line in output.splitlines():
        match line.split():
            case ["phrase", number]:
                current = int(number)
            case [word, start, end] if current >= 0:
                found[current].append(Span(text=word.lower(), start_s=float(start), end_s=float(end)))
    return found


def _speech(path: Path, words: Sequence[str], spans: list[Span]) -> Speech | None:
    if [span.text for span in spans] != list(words):
        return None
    pcm, rate_hz = soundfile.read(path, dtype="float32")
    return Speech(pcm=pcm, rate_hz=int(rate_hz), words=tuple(spans), sounds=())
