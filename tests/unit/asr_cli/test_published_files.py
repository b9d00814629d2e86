import hashlib
from pathlib import Path

import pytest

from asr_cli.published import MIMI, PUBLISHED, PublishedFile, verify
from shared.errors import CheckpointError
from shared.hub import HubFile

CONTENT = b"weights of a unit test"
WANTED = HubFile(repo="owner/repo", revision=None, file="model.st")
KEY = ("owner/repo", "model.st")
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.st"
    path.write_bytes(CONTENT)
    return path


def test_the_table_holds_whole_sums_only() -> None:
    assert len(PUBLISHED) == 8
    for (repo, _), known in PUBLISHED.items():
        assert repo.startswith("kyutai/stt-")
        assert known.size_bytes > 0
        assert known.sha256 is None or len(bytes.fromhex(known.sha256)) == 32
    assert PUBLISHED["kyutai/stt-2.6b-en-candle", MIMI].size_bytes == 384_644_900


def test_a_file_as_published_is_fine(path: Path) -> None:
    with_sum = PublishedFile(size_bytes=len(CONTENT), sha256=SUM)
    without = PublishedFile(size_bytes=len(CONTENT))

    assert verify(path, WANTED, published={KEY: with_sum}) == "sha256 as published"
    assert verify(path, WANTED, published={KEY: without}) == "size as published"
    assert verify(path, WANTED, published={}) == "no sum known"


def test_another_size_or_sum_is_refused(path: Path) -> None:
    for known in (
        PublishedFile(size_bytes=len(CONTENT) + 1, sha256=SUM),
        PublishedFile(size_bytes=len(CONTENT), sha256=SUM[::-1]),
    ):
        with pytest.raises(CheckpointError, match="delete it and fetch it again"):
            verify(path, WANTED, published={KEY: known})


def test_a_named_revision_is_not_measured_by_the_published_one(path: Path) -> None:
    older = HubFile(repo="owner/repo", revision="v0", file="model.st")

    assert verify(path, older, published={KEY: PublishedFile(size_bytes=1)}) == "no sum known"


def test_a_blob_of_the_cache_must_have_the_sum_that_it_is_named_by(tmp_path: Path) -> None:
    blob = tmp_path / SUM
    blob.write_bytes(CONTENT)
    link = tmp_path / "model.st"
    link.symlink_to(blob)
    assert verify(link, WANTED, published={}) == "sha256 as the hub says"

    blob.write_bytes(CONTENT[:-1])
    with pytest.raises(CheckpointError, match=f"expected {SUM}"):
        verify(link, WANTED, published={})
