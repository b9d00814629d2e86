import json

from training.figures import Figures
from training.report import Result, main_line, table
from training.scoring import Errors


def figures(n_words: int, deletions: int) -> Figures:
    errors = Errors(n_words=n_words, deletions=deletions)
    return Figures(errors=errors, n_foreign=0, n_false=0, audio_s=10.0, start_error_ms=None, stop_error_ms=None)


def result(name: str, *sets: Figures | None) -> Result:
    named = tuple(("words", f"set {number}", one) for number, one in enumerate(sets))
    return Result(name=name, sets=named, latencies_ms=(), pause_auc=(0.5,) * 4, realtime_factor=1.0)


def test_a_set_of_words_that_a_checkpoint_does_not_know_has_no_figures() -> None:
    results = [result("small", figures(100, 4), None), result("large", figures(100, 3), figures(50, 1))]
    rows = [line.split(" | ") for line in table(results).splitlines() if line.startswith("| set ")]
    head, *sets = rows
    assert head == ["| set", "words", "small", "large |"]
    assert [row[1] for row in sets] == ["100", "50"]
    assert [row[2].startswith("**4.0 %**") for row in sets] == [True, False]
    assert [row[2] for row in sets][1] == "not known"
    assert [row[3][:9] for row in sets] == ["**3.0 %**", "**2.0 %**"]
    assert json.loads(main_line(results)) == {
        "small": {"words: set 0": 0.04},
        "large": {"words: set 0": 0.03, "words: set 1": 0.02},
    }
