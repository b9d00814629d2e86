import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import CheckpointError, ConfigError
from shared.hub import HubFile, find, locate, parse_reference, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = b"weights of a unit test"


def put_into_cache(cache: Path, repo: str, file: str, *, revision: str = "main", content: bytes = CONTENT) -> Path:
    """Lay a file into a folder the way the hub's cache does."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    link = folder / "snapshots" / COMMIT / file
    for path in (blob, link, folder / "refs" / revision):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    (folder / "refs" / revision).write_text(COMMIT)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("weights/lm.safetensors", None),
        ("/abs/hf:/x", None),
        ("hf://kyutai/stt/model.safetensors", HubFile(repo="kyutai/stt", revision=None, file="model.safetensors")),
        ("hf://kyutai/stt/sub/mimi@125.st", HubFile(repo="kyutai/stt", revision=None, file="sub/mimi@125.st")),
        ("hf://kyutai/stt@v1.0/m.st", HubFile(repo="kyutai/stt", revision="v1.0", file="m.st")),
    ],
)
def test_a_reference_names_a_file_of_the_hub_or_is_a_path(reference: str, expected: HubFile | None) -> None:
    assert parse_reference(reference) == expected


@pytest.mark.parametrize(
    "reference",
    [
        "hf://",
        "hf://a",
        "hf://a/b",
        "hf://a/b/",
        "hf:///b/c",
        "hf://a//c",
        "hf://a/b@/c",
        "hf://a/b/../c",
        "hf://../b/c",
    ],
)
def test_a_malformed_reference_is_refused(reference: str) -> None:
    with pytest.raises(ConfigError, match="must be hf://owner/repo/file"):
        parse_reference(reference)


def test_a_path_is_looked_for_here_first_and_then_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "both.bin").write_bytes(b"")
    (there / "one.bin").write_bytes(b"")
    monkeypatch.chdir(here)
    source = there / "unit.toml"

    assert locate("both.bin", source) == Path("both.bin")
    assert resolve("both.bin", source) == Path("both.bin")
    assert resolve("one.bin", source) == there / "one.bin"
    assert resolve(str(there / "one.bin"), Path("elsewhere.toml")) == there / "one.bin"


def test_a_path_without_a_file_is_refused_with_the_places_that_were_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()

    with pytest.raises(CheckpointError) as caught:
        resolve("absent.bin", tmp_path / "etc" / "unit.toml")
    assert str(caught.value) == (
        f"absent.bin: there is no such file; looked for {tmp_path}/absent.bin and {tmp_path}/etc/absent.bin"
    )
    assert find("folder", tmp_path / "unit.toml") is None


def test_a_file_that_the_system_keeps_from_us_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = 300 * "a"  # refused even to root, as a folder that one may not enter is to others
    with pytest.raises(CheckpointError, match=f"^{name}: .*/{name} cannot be read: File name too long$"):
        resolve(name, tmp_path / "unit.toml")

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path), mode)

    (tmp_path / "lm.st").write_bytes(b"")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"^lm\.st: .*/lm\.st cannot be read: Permission denied$"):
        resolve("lm.st", tmp_path / "unit.toml")


def test_a_file_in_the_cache_is_used_as_it_is(tmp_path: Path) -> None:
    latest = put_into_cache(tmp_path, "owner/repo", "sub/model.st")
    older = put_into_cache(tmp_path, "owner/repo", "old.st", revision="v1")

    assert resolve("hf://owner/repo/sub/model.st", Path(), cache=tmp_path) == latest
    assert resolve("hf://owner/repo@v1/old.st", Path(), cache=tmp_path) == older
    assert find("hf://owner/repo/other.st", Path(), cache=tmp_path) is None
    assert find("hf://owner/repo@v2/old.st", Path(), cache=tmp_path) is None


@pytest.mark.parametrize("repo", ["owner /repo", "owner/two--dashes", "-owner/repo"])
def test_a_name_that_the_hub_does_not_allow_is_refused(repo: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^hf://{repo}/model.st: "):
        resolve(f"hf://{repo}/model.st", Path(), cache=tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"HF_HUB_OFFLINE": "1"},
        {"HF_ENDPOINT": "hub.invalid"},  # without https://
        {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": "socks5://127.0.0.1:9"},  # takes a package that is not here
    ],
    ids=["offline", "endpoint", "proxy"],
)
def test_a_file_that_can_not_be_had_is_refused_with_what_to_do(wrong: dict[str, str], tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from shared.hub import resolve; from shared.errors import CheckpointError\n"
        "try: resolve('hf://owner/repo/model.st', Path())\n"
        "except CheckpointError as error: print(error)\n"
    )
    environ = {**os.environ, "HF_HOME": str(tmp_path), **wrong}

    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ, timeout=50
    ).stdout

    expected = "hf://owner/repo/model.st: not in the cache and not to be had now (asr fetch downloads ahead): "
    assert said.startswith(expected)


def test_without_huggingface_hub_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(ConfigError, match=r"hf:// needs huggingface_hub: pip install '.\[worker\]'"):
        find("hf://owner/repo/model.st", Path())
