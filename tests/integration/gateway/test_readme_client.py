"""The client that the README shows is run as it stands there, against a gateway of ours."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import soundfile

README = Path(__file__).parents[3] / "README.md"


async def test_the_client_of_the_readme_prints_the_words(rig: Any, gateway: Any, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for shown, real in (("127.0.0.1:8080", f"127.0.0.1:{gateway.port}"), ("public_token", rig.KEY)):
        assert program.count(shown) == 1
        program = program.replace(shown, real)
    pcm = rig.noise(25)
    soundfile.write(tmp_path / "speech.wav", pcm, 24_000, subtype="FLOAT")

    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(tmp_path / "speech.wav")), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(client.communicate(), 30)

    words = [text for kind, text, *_ in rig.expected_words(pcm, flush=True) if kind == "Word"]
    assert (client.returncode, said.decode().split()) == (0, words)
