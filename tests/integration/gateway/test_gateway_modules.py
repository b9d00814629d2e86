"""Two modules in one file: one gateway, two paths, and for each a worker of its own."""

import asyncio
import io
from pathlib import Path
from typing import Any

import aiohttp
import soundfile

MODULE = """
[modules.{name}]
type = "BatchedAsr"
path = "/api/{name}"
lm_model_file = "{name}.safetensors"
text_tokenizer_file = "{name}.model"
audio_tokenizer_file = "mimi.safetensors"
asr_delay_in_tokens = {delay}
batch_size = 2
[modules.{name}.model]
audio_vocab_size = 2049
text_in_vocab_size = 8001
text_out_vocab_size = 8000
audio_codebooks = 32
[modules.{name}.model.transformer]
d_model = 2048
num_heads = 16
num_layers = 16
dim_feedforward = 8192
causal = true
norm_first = true
bias_ff = false
bias_attn = false
context = 750
max_period = 100000
use_conv_block = false
use_conv_bias = true
gating = "silu"
norm = "RmsNorm"
positional_embedding = "Rope"
conv_layout = false
conv_kernel_size = 3
kv_repeat = 1
max_seq_len = 40960
"""


async def test_each_module_of_a_file_is_served_by_its_own_workers(rig: Any, tmp_path: Path) -> None:
    config = tmp_path / "two.toml"
    head = 'static_dir = "static"\nlog_dir = "logs"\ninstance_name = "two"\nauthorized_ids = []\n'
    config.write_text(head + MODULE.format(name="quick", delay=6) + MODULE.format(name="slow", delay=32))
    delays = {"quick": 6, "slow": 32}
    workers = {name: rig.worker("--config", str(config), "--module", name) for name in delays}
    endpoints = [flag for worker in workers.values() for flag in ("--worker", worker.endpoint)]
    pcm = rig.noise(20.4)

    with rig.gateway_process(tmp_path, "--config", str(config), *endpoints) as (_, port):
        async with aiohttp.ClientSession() as http:
            gateway = rig.RunningGateway(port, http)
            await rig.eventually(lambda: rig.is_ready(gateway, 2))
            for name, delay in delays.items():
                url = f"{gateway.url}/api/{name}"
                async with http.ws_connect(url, headers={"kyutai-api-key": rig.KEY}) as socket:
                    client = await rig.Client(socket).ready()
                    await client.speak(pcm)
                    await client.send("Flush")
                    messages = await client.until("Flushed")
                said = rig.expected_words(pcm, flush=True, n_codebooks=32, n_heads=0, delay_frames=delay)
                assert rig.words_of(messages) == said

            infos = await gateway.json("/api/modules_info")
            assert [(info["path"], info["total_slots"]) for info in infos] == [("/api/quick", "2"), ("/api/slow", "2")]

            # One module without a worker is no reason to refuse the other.
            workers["slow"].kill()
            await rig.eventually(lambda: rig.is_ready(gateway, 1))
            assert await gateway.status("/readyz") == 200
            assert (await gateway.json("/readyz"))["missing"] == ["slow"]
            queries = ("?module=quick", "?module=slow", "?module=quick&module=slow")
            assert [await gateway.status("/readyz" + query) for query in queries] == [200, 503, 503]
            assert await gateway.status("/readyz?module=none") == 404
            unknown = {"error": "module=none: not served here; allowed: quick, slow", "code": "unknown_module"}
            assert await gateway.json("/readyz?module=none") == unknown
            async with http.ws_connect(f"{gateway.url}/api/slow", headers={"kyutai-api-key": rig.KEY}) as socket:
                assert (await rig.Client(socket).refusal())[::2] == ("no_free_slot", 1013)
            async with http.ws_connect(f"{gateway.url}/api/quick", headers={"kyutai-api-key": rig.KEY}) as socket:
                await rig.Client(socket).ready()


async def test_files_that_wait_for_one_module_hold_up_no_other(rig: Any, tmp_path: Path) -> None:
    config = tmp_path / "two.toml"
    head = 'static_dir = "static"\nlog_dir = "logs"\ninstance_name = "two"\nauthorized_ids = []\n'
    config.write_text(head + MODULE.format(name="there", delay=6) + MODULE.format(name="gone", delay=6))
    worker = rig.worker("--config", str(config), "--module", "there")
    body = io.BytesIO()
    soundfile.write(body, rig.noise(2), 24_000, format="WAV")

    with rig.gateway_process(tmp_path, "--config", str(config), "--worker", worker.endpoint) as (_, port):
        async with aiohttp.ClientSession(headers={"kyutai-api-key": rig.KEY}) as http, asyncio.timeout(15):
            gateway = rig.RunningGateway(port, http)
            await rig.eventually(lambda: rig.is_ready(gateway, 1))

            async def post(name: str) -> int:
                async with http.post(f"{gateway.url}/api/{name}", data=body.getvalue()) as answer:
                    return answer.status

            waiting = [asyncio.create_task(post("gone")) for _ in range(6)]
            await rig.eventually(lambda: _waits(gateway, 6))

            assert await post("there") == 200
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)


async def _waits(gateway: Any, n_files: int) -> bool:
    return bool(await gateway.metric("asr_gateway_file_queue_length") == n_files)
