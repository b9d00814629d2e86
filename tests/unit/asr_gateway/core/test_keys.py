from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_gateway.core.key_hash import NO_KEY, key_hash
from asr_gateway.core.keys import KeyRing
from shared.errors import UnauthorizedError

HASHED = "sha256:" + sha256(b"hidden").hexdigest()


@pytest.mark.parametrize("key", ["plain", "hidden"])
def test_plain_and_hashed_keys_open_the_door_under_their_short_hash(key: str) -> None:
    assert KeyRing(("plain", HASHED)).admit(key) == key_hash(key)


def test_a_key_that_is_no_utf8_opens_the_door_by_its_hash() -> None:
    digest = sha256(b"\xff").hexdigest()
    assert KeyRing((f"sha256:{digest}",)).admit("\udcff") == digest[:8]


def test_a_hash_in_capitals_is_the_same_hash() -> None:
    assert KeyRing((HASHED.upper().replace("SHA256", "sha256"),)).admit("hidden") == key_hash("hidden")


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key_is_refused_and_told_where_it_goes(key: str | None) -> None:
    with pytest.raises(UnauthorizedError, match="kyutai-api-key"):
        KeyRing(("plain",)).admit(key)


@pytest.mark.parametrize("key", ["plai", "plain ", "Plain", HASHED, sha256(b"hidden").hexdigest(), "\udcff"])
def test_other_keys_are_refused(key: str) -> None:
    with pytest.raises(UnauthorizedError, match="not known"):
        KeyRing(("plain", HASHED)).admit(key)


@given(st.text())
def test_an_error_never_quotes_the_key(key: str) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        KeyRing(("a key that text strategies do not find",)).admit(f"<{key}>")
    assert f"<{key}>" not in str(caught.value)


def test_without_keys_everybody_may_come_in() -> None:
    ring = KeyRing(())
    assert ring.is_open
    assert ring.admit(None) == ring.admit("whatever") == NO_KEY
