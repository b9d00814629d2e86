from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

import pytest

from shared.flavour import is_compiled


@pytest.mark.parametrize(
    "name",
    [
        "asr_gateway.core.session",
        "asr_gateway.dialects.kyutai_samples",  # nothing at all in plain Python
        "asr_gateway.io.websocket_frames",
        "shared.wire",
    ],
)
def test_all_hot_modules_run_in_the_flavour_that_is_told(name: str) -> None:
    spec = find_spec(name)
    is_machine_code = spec is not None and (spec.origin or "").endswith(tuple(EXTENSION_SUFFIXES))
    assert is_machine_code == is_compiled()
