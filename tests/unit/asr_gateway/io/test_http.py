import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer, make_mocked_request
from yarl import URL

from asr_gateway.core.keys import KeyRing
from asr_gateway.io.http import StaticFiles, authenticate, build_info, error_response
from shared.errors import BadAudioError, NoFreeSlotError, UnauthorizedError, WorkerLostError

KEYS = KeyRing(("right",))
UPGRADE = {"Upgrade": "WebSocket", "Connection": "Upgrade"}


def test_the_header_brings_the_key() -> None:
    authenticate(make_mocked_request("POST", "/", {"kyutai-api-key": "right"}), KEYS)


def test_a_websocket_may_bring_the_key_in_the_query() -> None:
    authenticate(make_mocked_request("GET", "/?auth_id=right", UPGRADE), KEYS)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_key_may_come_as_a_bearer_token(scheme: str) -> None:
    authenticate(make_mocked_request("POST", "/", {"Authorization": f"{scheme} right"}), KEYS)


def test_another_authorization_is_a_proxys_business() -> None:
    for_a_proxy = {"Authorization": "Basic eDp5"}
    authenticate(make_mocked_request("POST", "/", for_a_proxy | {"kyutai-api-key": "right"}), KEYS)
    authenticate(make_mocked_request("GET", "/?auth_id=right", UPGRADE | {"Authorization": "Bearer x"}), KEYS)
    with pytest.raises(UnauthorizedError, match="a key is needed"):
        authenticate(make_mocked_request("POST", "/", for_a_proxy), KEYS)


def test_the_header_counts_before_the_query() -> None:
    with pytest.raises(UnauthorizedError):
        authenticate(make_mocked_request("GET", "/?auth_id=right", UPGRADE | {"kyutai-api-key": "wrong"}), KEYS)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_other_requests_may_not_bring_the_key_in_the_query(method: str) -> None:
    with pytest.raises(UnauthorizedError):
        authenticate(make_mocked_request(method, "/?auth_id=right"), KEYS)


@pytest.mark.parametrize(("method", "headers"), [("POST", {}), ("GET", UPGRADE)])
def test_without_keys_a_strangers_page_may_neither_send_files_nor_connect(method: str, headers: dict[str, str]) -> None:
    headers = headers | {"Host": "127.0.0.1:8080", "Origin": "http://evil.example"}
    with pytest.raises(UnauthorizedError, match=r"Origin 'http://evil\.example'"):
        authenticate(make_mocked_request(method, "/", headers), KeyRing(()))


def test_for_a_request_without_a_host_no_resolver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: pytest.fail("this may take seconds"))
    authenticate(make_mocked_request("POST", "/", {}), KeyRing(()))
    with pytest.raises(UnauthorizedError):
        authenticate(make_mocked_request("POST", "/", {"Origin": "http://evil.example"}), KeyRing(()))


def test_with_a_key_a_page_may_come_from_anywhere() -> None:
    headers = {"Host": "asr.example", "Origin": "http://other.example", "kyutai-api-key": "right"}
    authenticate(make_mocked_request("POST", "/", headers), KEYS)


def test_an_error_is_json_with_a_code() -> None:
    response = error_response(BadAudioError("no audio"))
    assert (response.status, response.text) == (400, '{"error": "no audio", "code": "bad_audio"}')
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize("error", [NoFreeSlotError(), WorkerLostError("lost")])
def test_what_may_be_tried_again_says_when(error: NoFreeSlotError | WorkerLostError) -> None:
    response = error_response(error)
    assert (response.status, response.headers["Retry-After"]) == (503, "5")


def test_build_info_has_the_fields_of_moshi_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_GIT_HASH", "abc123")
    info = build_info()
    assert info["git_hash"] == "abc123"
    assert {"build_timestamp", "git_branch", "git_timestamp", "git_describe", "version"} <= info.keys()


class Site:
    """A folder with secrets beside it, served."""

    def __init__(self, root: Path, server: TestServer, session: ClientSession) -> None:
        self.root = root
        self.server = server
        self.session = session

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    async def get(self, path: str) -> tuple[int, str]:
        url = URL(f"http://{self.server.host}:{self.server.port}{path}", encoded=True)
        async with self.session.get(url, allow_redirects=False) as response:
            text = response.headers.get("Location", "") if response.status == 307 else await response.text()
            return response.status, text


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    root = tmp_path / "static"
    (tmp_path / "secret.txt").write_text("secret")
    app = web.Application()
    app.router.add_get("/{path:.*}", StaticFiles(root).handle)
    async with TestServer(app) as server, ClientSession() as session:
        yield Site(root, server, session)


async def test_a_folder_that_does_not_exist_leaves_the_built_in_page(site: Site) -> None:
    status, text = await site.get("/")
    assert (status, "<!doctype html>" in text) == (200, True)
    assert (await site.get("/a.txt"))[0] == 404


async def test_files_are_served(site: Site) -> None:
    site.write("a b.txt", "hello")
    assert await site.get("/a%20b.txt") == (200, "hello")


async def test_an_index_replaces_the_built_in_page(site: Site) -> None:
    site.write("index.html", "mine")
    assert await site.get("/") == (200, "mine")
    assert await site.get("/index.html") == (200, "mine")


async def test_a_folder_answers_with_its_index_after_the_slash(site: Site) -> None:
    site.write("demo/index.html", "demo")
    assert await site.get("/demo/") == (200, "demo")
    assert await site.get("/demo?x=1") == (307, "/demo/?x=1")


async def test_a_redirect_never_leaves_the_host(site: Site) -> None:
    site.write("evil.com/index.html", "x")
    assert await site.get("//evil.com") == (307, "/evil.com/")


async def test_a_folder_without_an_index_is_not_listed(site: Site) -> None:
    site.write("empty/a.txt", "x")
    assert (await site.get("/empty/"))[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/a/..%2f..%2fsecret.txt",
        "/link.txt",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/.hidden",
        "/a%00b",
        "/" + "x" * 5000,
    ],
)
async def test_nothing_outside_of_the_folder_is_served(site: Site, path: str) -> None:
    site.write(".hidden", "hidden")
    site.write("a/b.txt", "x")
    (site.root / "link.txt").symlink_to(site.root.parent / "secret.txt")
    status, text = await site.get(path)
    assert status == 404
    assert "secret" not in text


async def test_who_reads_nothing_of_a_file_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(32 << 20))
    app = web.Application()
    app.router.add_get("/{path:.*}", StaticFiles(tmp_path, send_within_s=0.2).handle)
    async with TestServer(app) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port, limit=1 << 10)
        writer.write(b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")

        async with asyncio.timeout(10):
            while server.runner.server.connections:  # noqa: ASYNC110 (the server tells nobody)
                await asyncio.sleep(0.01)
        writer.close()
