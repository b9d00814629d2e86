"""The page, and the README's, run by node in a fake browser (browser.mjs): what somebody does, and what they see.

A promise that fails with nobody to hear of it ends node, and so fails the test.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
HERE = Path(__file__).parent
ROOT = HERE.parents[3]

pytestmark = pytest.mark.skipif(NODE is None, reason="node, which runs the page's JavaScript here, is not installed")

Run = Callable[[str], Any]


def _run(folder: Path, body: str) -> Any:
    for file in [*(ROOT / "asr_gateway/web").glob("*.js"), HERE / "browser.mjs"]:
        shutil.copy(file, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "test.js").write_text(
        'Object.assign(globalThis, await import("./browser.mjs"));\n'
        f"const result = await (async () => {{ {body} }})();\n"
        "await settled();\n"
        "console.log(JSON.stringify(result));\n"
    )
    done = subprocess.run([str(NODE), "test.js"], cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def page(tmp_path: Path) -> Run:
    """Runs the body of an async function on the page; gives what it returns."""
    return lambda body: _run(tmp_path, f'await import("./app.js"); await settled(); {body}')


@pytest.fixture
def readme_page(tmp_path: Path) -> Run:
    """Runs the body of an async function on the page that the README shows."""
    (script,) = re.findall(r'<script type="module">\n(.*?)</script>', (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "readme.js").write_text(script)
    return lambda body: _run(tmp_path, f'import("./readme.js"); while (!microphones.length) await settled(); {body}')


def _seen(state: str, button: str = "microphone", error: str | None = None) -> dict[str, str | None]:
    return {"state": state, "button": button, "error": error}


# --- a session as it should be ---


def test_the_microphone_is_sent_until_stop_and_then_the_last_words_are_asked_for(page: Run) -> None:
    live, finishing, done, sent, is_recording, heard = page("""
        await speak();
        const live = seen();
        press("stop");
        const finishing = seen();
        const heard = [$("audio").textContent];
        recorders[0].record();
        heard.push($("audio").textContent);
        sockets[0].says("Flushed");
        return [live, finishing, seen(), sockets[0].sent, microphones[0].live, heard];
    """)
    assert (live, finishing, done) == (
        _seen("listening", "stop"),
        _seen("waiting for the last words"),
        _seen("done"),
    )
    assert (sent, is_recording) == (["Audio", "Flush"], False)
    assert heard[0] == heard[1]


def test_a_file_is_played_and_sent_at_the_same_pace(page: Run) -> None:
    playing, halfway, sent = page("""
        await openFile();
        sockets[0].says("Ready");
        decodings[0].done(0.16);
        await settled();
        const playing = [seen(), aloud];
        pass(0.08);
        const halfway = [...sockets[0].sent];
        pass(0.08);
        return [playing, halfway, sockets[0].sent];
    """)
    assert playing == [_seen("playing", "stop"), [0.16]]
    assert (halfway, sent) == (["Audio"], ["Audio", "Audio", "Flush"])


def test_a_file_that_ends_before_ready_is_sent_then(page: Run) -> None:
    early, sent, done = page("""
        await openFile();
        decodings[0].done(0.1);
        await settled();
        pass(0.2);
        const early = seen();
        sockets[0].says("Ready");
        sockets[0].says("Flushed");
        return [early, sockets[0].sent, seen()];
    """)
    assert (early, done) == (_seen("connecting", "stop"), _seen("done"))
    assert sent == ["Audio", "Audio", "Flush"]


# --- stopped while something was waited for ---


@pytest.mark.parametrize("answer", ["", 'sockets[0].says("Ready");'], ids=["connecting", "live"])
def test_a_microphone_that_is_allowed_after_stop_is_given_back(page: Run, answer: str) -> None:
    done, is_recording, n_contexts = page(f"""
        press("microphone");
        {answer}
        press("stop");
        sockets[0].says("Flushed");
        microphones[0].allow();
        await settled();
        return [seen(), microphones[0].live, contexts.length];
    """)
    assert (done, is_recording, n_contexts) == (_seen("done"), False, 0)


def test_stop_does_not_wait_for_a_connection(page: Run) -> None:
    done, is_open = page("""
        press("microphone");
        press("stop");
        return [seen(), sockets[0].isOpen];
    """)
    assert (done, is_open) == (_seen("done"), False)


def test_a_microphone_that_is_allowed_after_the_connection_failed_is_given_back(page: Run) -> None:
    is_recording, state = page("""
        press("microphone");
        sockets[0].breaks(1006);
        microphones[0].allow();
        await settled();
        return [microphones[0].live, seen().state];
    """)
    assert (is_recording, state) == (False, "failed")


@pytest.mark.parametrize("step", ["addModule", "resume"])
def test_stop_while_the_microphone_is_set_up_still_brings_the_last_words(page: Run, step: str) -> None:
    finishing, done, is_recording = page(f"""
        slow.{step} = true;
        press("microphone");
        microphones[0].allow();
        await settled();
        sockets[0].says("Ready");
        press("stop");
        slow.go();
        await settled();
        const finishing = seen();
        sockets[0].says("Flushed");
        return [finishing, seen(), microphones[0].live];
    """)
    assert (finishing, done, is_recording) == (_seen("waiting for the last words"), _seen("done"), False)


@pytest.mark.parametrize("outcome", ["done(1)", 'fail("not audio")'])
def test_a_file_that_is_stopped_while_it_is_decoded_is_not_played(page: Run, outcome: str) -> None:
    done, aloud = page(f"""
        await openFile();
        sockets[0].says("Ready");
        press("stop");
        sockets[0].says("Flushed");
        decodings[0].{outcome};
        await settled();
        return [seen(), aloud];
    """)
    assert (done, aloud) == (_seen("done"), [])


def test_a_run_that_another_has_followed_is_not_seen_to_fail(page: Run) -> None:
    seen = page("""
        press("microphone");
        await openFile();
        sockets[1].says("Ready");
        microphones[0].deny("Permission denied");
        await settled();
        return seen();
    """)
    assert seen == _seen("playing", "stop")


# --- no audio ---


def test_a_denied_microphone_is_told_and_ends_the_session(page: Run) -> None:
    seen, is_open = page("""
        press("microphone");
        sockets[0].says("Ready");
        microphones[0].deny("Permission denied");
        await settled();
        const isOpen = sockets[0].isOpen;
        sockets[0].breaks(1005);
        return [seen(), isOpen];
    """)
    assert (seen, is_open) == (_seen("failed", error="no audio: Permission denied"), False)


@pytest.mark.parametrize("event", ["microphones[0].unplug()", 'contexts[0].enter("interrupted")'])
def test_a_lost_microphone_is_told_and_the_last_words_still_come(page: Run, event: str) -> None:
    finishing, done, sent, is_recording = page(f"""
        await speak();
        {event};
        await settled();
        const finishing = seen();
        sockets[0].says("Flushed");
        return [finishing, seen(), sockets[0].sent, microphones[0].live];
    """)
    error = "no more audio: the microphone was unplugged, is no longer allowed or is in use elsewhere"
    assert finishing == _seen("waiting for the last words", error=error)
    assert done == _seen("done", error=error)
    assert (sent, is_recording) == (["Audio", "Flush"], False)


def test_a_microphone_that_is_unplugged_after_its_run_disturbs_no_other(page: Run) -> None:
    seen, sent = page("""
        await speak();
        await openFile();
        sockets[1].says("Ready");
        microphones[0].unplug();
        await settled();
        return [seen(), sockets[1].sent];
    """)
    assert (seen, sent) == (_seen("playing", "stop"), [])


def test_a_dropped_folder_is_told(page: Run) -> None:
    seen, is_open = page("""
        const folder = { arrayBuffer: async () => { throw new Error("not a file"); } };
        document.ondrop({ preventDefault() {}, dataTransfer: { files: [folder] } });
        await settled();
        return [seen(), sockets[0].isOpen];
    """)
    assert (seen, is_open) == (_seen("failed", error="no audio: not a file"), False)


@pytest.mark.parametrize("answer", ['files["0.wav"] = "down"', ""], ids=["service down", "no such file"])
def test_a_sample_that_cannot_be_fetched_is_told(tmp_path: Path, answer: str) -> None:
    seen = _run(
        tmp_path,
        f"""
        files["samples.json"] = [{{ file: "0.wav", text: "yes" }}];
        await import("./app.js");
        await settled();
        {answer};
        $("samples").children[0].onclick();
        await settled();
        return seen();
        """,
    )
    assert seen == _seen("failed", error="no audio: 0.wav could not be fetched: is the service running?")


def test_what_a_service_tells_about_its_model_is_shown(tmp_path: Path) -> None:
    text, words = _run(
        tmp_path,
        """
        files["about.json"] = { text: "It knows two words.", words: ["yes", "no"] };
        await import("./app.js");
        await settled();
        return [$("about-text").textContent, $("about-words").textContent];
        """,
    )
    assert (text, words) == ("It knows two words.", "yes, no")


def test_a_service_that_tells_nothing_about_its_model_is_no_error(page: Run) -> None:
    assert page('return [$("about-text").textContent, $("error").textContent];') == ["", ""]


# --- the page that the README shows ---


def test_the_readme_page_sends_the_microphone_and_asks_for_the_last_words_when_it_is_lost(readme_page: Run) -> None:
    sent, alerts = readme_page("""
        microphones[0].allow();
        await settled();
        sockets[0].says("Ready");
        recorders[0].record();
        microphones[0].unplug();
        sockets[0].says("Flushed");
        return [sockets[0].sent, alerts];
    """)
    assert (sent, alerts) == (["Audio", "Flush"], [])


@pytest.mark.parametrize("allowed_first", [True, False])
def test_the_readme_page_gives_the_microphone_back_when_it_fails(readme_page: Run, *, allowed_first: bool) -> None:
    steps = ["microphones[0].allow(); await settled();", "sockets[0].breaks(1011);"]
    is_recording, n_alerts = readme_page(f"""
        {" ".join(steps if allowed_first else reversed(steps))}
        await settled();
        return [microphones[0].live, alerts.length];
    """)
    assert (is_recording, n_alerts) == (False, 1)


def test_the_readme_page_tells_that_the_microphone_was_denied(readme_page: Run) -> None:
    alerts, is_open = readme_page("""
        microphones[0].deny("Permission denied");
        await settled();
        return [alerts, sockets[0].isOpen];
    """)
    assert (alerts, is_open) == (["Permission denied"], False)
