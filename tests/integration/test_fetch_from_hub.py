"""``asr fetch`` against a hub of our own on this machine, and a start without any network afterwards."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
FILES = {"/somebody/model/resolve/main/sub/weights.bin": os.urandom(200_000)}


class FakeHub(BaseHTTPRequestHandler):
    """Serves FILES the way the hub serves large files: the entity tag is the SHA-256."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        content = self._answer()
        self.wfile.write(content)

    def _answer(self) -> bytes:
        content = FILES.get(self.path.partition("?")[0])
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        return content or b""

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(10)


def fetch(reference: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asr_cli", "fetch", reference],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environ},
    )


def test_what_was_fetched_is_checked_and_found_offline_afterwards(tmp_path: Path, endpoint: str) -> None:
    reference = "hf://somebody/model/sub/weights.bin"

    first = fetch(reference, tmp_path, HF_ENDPOINT=endpoint)
    assert (first.returncode, first.stdout.splitlines()) == (
        0,
        [f"{reference}: fetching", f"{reference}: here, 200,000 bytes, sha256 as the hub says"],
    ), first.stderr

    offline = fetch(reference, tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr


def test_a_file_that_the_hub_does_not_have_is_named(tmp_path: Path, endpoint: str) -> None:
    missing = fetch("hf://somebody/model/other.bin", tmp_path, HF_ENDPOINT=endpoint)

    assert missing.returncode == 1
    assert "error: hf://somebody/model/other.bin: not in the cache and not to be had now" in missing.stderr
    assert "Traceback" not in missing.stderr
