"""A configuration file of our own writing, as moshi-server's users write theirs, for every test that needs one."""

from pathlib import Path
from typing import Final

import pytest

from shared.config_file import LoadedConfig, load_config
from shared.errors import ConfigError

TOP: Final = """
static_dir = "./pages"
log_dir = "/var/log/stt"
instance_name = "unit"
authorized_ids = ["first key", "second"]
"""

MODULE: Final = """
[modules.NAME]
type = "BatchedAsr"
path = "/api/NAME"
lm_model_file = "lm.safetensors"
text_tokenizer_file = "text.model"
audio_tokenizer_file = "hf://somebody/codec/mimi@125.safetensors"
asr_delay_in_tokens = 6
batch_size = 4
temperature = 0

[modules.NAME.model]
audio_vocab_size = 2049
text_in_vocab_size = 8001
text_out_vocab_size = 8000
audio_codebooks = 20

[modules.NAME.model.transformer]
d_model = 512
num_heads = 8
num_layers = 2
dim_feedforward = 2048
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

BASE: Final = TOP + MODULE.replace("NAME", "asr")
DELAY_CONDITIONER: Final = """
[modules.asr.model.conditioners.delay]
type = "ContinuousAttribute"
dim = 64
scale_factor = 10.0
max_period = 10000
"""


class SampleConfig:
    """The texts to build a file from, and a folder to write it to."""

    top = TOP
    base = BASE
    delay_conditioner = DELAY_CONDITIONER

    def __init__(self, folder: Path) -> None:
        self.path = folder / "unit.toml"

    def module(self, name: str) -> str:
        return MODULE.replace("NAME", name)

    def changed(self, old: str, new: str) -> str:
        assert BASE.count(old) == 1, old
        return BASE.replace(old, new)

    def load(self, text: str) -> LoadedConfig:
        self.path.write_text(text)
        return load_config(self.path, {"HOME": "/home/someone"})

    def problems(self, text: str) -> list[str]:
        """What is wrong with ``text``, without the file's name that stands before every problem."""
        with pytest.raises(ConfigError) as caught:
            self.load(text)
        prefix = f"{self.path}: "
        assert all(problem.startswith(prefix) for problem in caught.value.problems)
        return [problem.removeprefix(prefix) for problem in caught.value.problems]


@pytest.fixture
def sample_config(tmp_path: Path) -> SampleConfig:
    return SampleConfig(tmp_path)
