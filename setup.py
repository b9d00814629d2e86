"""Compiles the modules that each frame of audio passes through in the gateway, where that can be done.

Everything else about the package stands in ``pyproject.toml``. Wheels and plain installations get machine code, made by
mypyc from the same sources, and beside them one function in C, where mypy, the packages that they import, a C compiler
and Python's headers are at hand (so not with pip's build isolation, which hides mypy). Else, and in every editable
installation, where a library would hide what is edited, the sources run as they are. ``make compiled`` does it.

``ASR_COMPILE=0`` asks for the sources as they are, ``ASR_COMPILE=1`` for an error instead of them.
"""

import os
import sys
import tempfile
from typing import Any

from setuptools import Extension, setup

COMPILED = (
    "asr_gateway.audio.ogg",
    "asr_gateway.audio.opus",
    "asr_gateway.core.clocks",
    "asr_gateway.core.credit",
    "asr_gateway.core.dialect",
    "asr_gateway.core.framer",
    "asr_gateway.core.level",
    "asr_gateway.core.limits",
    "asr_gateway.core.outbound",
    "asr_gateway.core.replay",
    "asr_gateway.core.requests",
    "asr_gateway.core.session",
    "asr_gateway.dialects.kyutai",
    "asr_gateway.io.fan_out",
    "asr_gateway.io.server_frames",
    "asr_gateway.io.stream",
    "asr_gateway.io.websocket_client",
    "asr_gateway.io.websocket_frames",
    "asr_gateway.io.websocket_reader",
    "asr_gateway.io.websocket_writer",
    "asr_gateway.io.worker_link",
    "shared.columns",
    "shared.wire",
    "shared.wire_fields",
)

IN_C = ("asr_gateway.dialects.kyutai_samples",)
"""What even compiled Python does not do in one pass; without it, other code does the same."""


def extensions(folder: str) -> list[Extension]:
    """Return what is to be compiled; ``folder`` takes the C files."""
    wish = os.environ.get("ASR_COMPILE", "")
    if wish == "0" or not {"bdist_wheel", "build_ext"} & set(sys.argv):
        return []
    try:
        import numpy  # noqa: ICN001, PLC0415  (not needed otherwise)
        from mypyc.build import mypycify  # noqa: PLC0415
    except ImportError:
        if wish == "1":
            raise
        print("mypy or numpy is not installed here: nothing is compiled")  # noqa: T201
        return []
    try:
        made = mypycify([f"{name.replace('.', '/')}.py" for name in COMPILED], target_dir=folder)
    except SystemExit:
        # It has said why: a package whose types are asked for is not installed, most likely.
        if wish == "1":
            raise
        return []
    made += [Extension(name, [f"{name.replace('.', '/')}.c"], include_dirs=[numpy.get_include()]) for name in IN_C]
    for extension in made:
        extension.optional = wish != "1"
    return made


with tempfile.TemporaryDirectory() as folder:
    # Nothing is left behind that a later build, of other sources, could take up.
    options: dict[str, Any] = {"build": {"build_base": folder}}
    setup(ext_modules=extensions(folder), options=options)
