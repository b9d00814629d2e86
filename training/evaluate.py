"""``python -m training eval``: every checkpoint through the same exam, through the service."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.exam import exam
from training.figures import Figures, figures, latencies_ms, pause_auc
from training.published import module_of, n_words_of
from training.report import Result, main_line, plot, table, write_json
from training.served import serving, transcribe_all
from training.testset import TestSet

_AT_ONCE: Final = 6
_LIVE_AT_ONCE: Final = 3
_LIVE_RECORDINGS: Final = 12
LIVE_SET: Final = "espeak-ng, held-out variants and accent"


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What to examine and how.

    ``checkpoints`` are (name, TOML file); ``n`` recordings of ten seconds make a set; ``only`` keeps the groups that
    contain the text. ``people`` is a folder of recorded words, for two more sets, ``kokoro`` the
    synthesiser's, for two more.
    """

    checkpoints: Sequence[tuple[str, Path]]
    n: int
    seed: int
    out: Path
    only: str = ""
    people: Path | None = None
    kokoro: Path | None = None
    live: bool = True


def examine(plan: Examination, say: Callable[[str], None]) -> list[Result]:
    """Run the exam, write the report into ``plan.out`` and return the results."""
    say("making the recordings")
    known = [n_words_of(toml.parent / module_of(toml).text_tokenizer_file) for _, toml in plan.checkpoints]
    asked = exam(plan.seed, plan.n, n_words=min(known), n_most=max(known), people=plan.people, kokoro=plan.kokoro)
    sets = [one for one in asked if plan.only in one.group]
    results = [
        asyncio.run(_result(name, toml, sets, n_words=n_words, live=plan.live, say=say))
        for (name, toml), n_words in zip(plan.checkpoints, known, strict=True)
    ]
    plan.out.mkdir(parents=True, exist_ok=True)
    text = table(results)
    (plan.out / "report.md").write_text(text, encoding="utf-8")
    write_json(results, plan.out / "report.json")
    if not plot(results, plan.out / "report.svg"):
        say("no picture: matplotlib is not installed (pip install -e '.[plots]')")
    say(text)
    say(main_line(results))
    return results


async def _result(
    name: str, toml: Path, sets: Sequence[TestSet], *, n_words: int, live: bool, say: Callable[[str], None]
) -> Result:
    scored: list[tuple[str, str, Figures | None]] = []
    latencies: list[float] = []
    auc: list[float] = []
    audio_s = used_s = 0.0
    async with serving(toml) as service:
        for one in sets:
            if one.n_words > n_words:
                scored.append((one.group, one.name, None))
                continue
            start = time.perf_counter()
            answers = await transcribe_all(service, one.recordings, at_once=_AT_ONCE, speed=0)
            used_s += time.perf_counter() - start
            found = figures(one.recordings, answers)
            scored.append((one.group, one.name, found))
            audio_s += found.audio_s
            say(f"{name}: {one.group}: {one.name}: {100 * found.errors.rate:.1f} %, {found.n_false} false words")
            if one.name == LIVE_SET and live and not auc:
                auc = pause_auc(one.recordings, answers, module_of(toml).delay_frames)
                few = one.recordings[:_LIVE_RECORDINGS]
                latencies = latencies_ms(few, await transcribe_all(service, few, at_once=_LIVE_AT_ONCE, speed=1))
    return Result(
        name=name,
        sets=tuple(scored),
        latencies_ms=tuple(latencies),
        pause_auc=tuple(auc) or (float("nan"),) * 4,
        realtime_factor=audio_s / max(used_s, 1e-9),
    )
