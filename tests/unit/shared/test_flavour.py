from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

import pytest

from shared.flavour import is_compiled


@pytest.mark.parametrize("name", ["asr_gateway.core.session", "asr_gateway.io.websocket_frames", "shared.wire"])
def test_all_hot_modules_run_in_the_flavour_that_is_told(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert spec.origin.endswith(tuple(EXTENSION_SUFFIXES)) == is_compiled()
