import re

import pytest
import torch

from asr_worker.model.placement import DTYPES, choose_device, choose_dtype, dtype_for_capability
from shared.errors import ConfigError
from shared.number_formats import F16_RISK, NUMBER_FORMATS


def test_the_cpu_is_float32_unless_told_otherwise() -> None:
    cpu = choose_device("cpu")
    assert choose_dtype(cpu, None) == (torch.float32, [])
    assert choose_dtype(cpu, "bf16") == (torch.bfloat16, [])
    assert choose_dtype(cpu, "f16") == (torch.float16, [F16_RISK])
    assert choose_dtype(cpu, "f32") == (torch.float32, [])


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cuda:", "cuda:x", ""])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^device is '{name}'; this machine has auto, cpu"):
        choose_device(name)


def test_who_has_a_gpu_that_torch_does_not_see_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        ConfigError, match=rf"auto, cpu \(torch {re.escape(torch.__version__)} was built without CUDA\)$"
    ):
        choose_device("cuda:0")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ConfigError, match=r"was built for CUDA 13\.0 and sees no GPU: is the driver that new\? "):
        choose_device("cuda")


def test_every_number_format_of_a_configuration_has_a_dtype() -> None:
    assert sorted(DTYPES) == sorted(NUMBER_FORMATS)


def test_a_device_with_bfloat16_is_not_warned_of() -> None:
    assert dtype_for_capability((8, 0)) == (torch.bfloat16, [])


def test_an_old_device_is_warned_of() -> None:
    why = "has no bfloat16 (it comes with 8.0): the model runs in"
    assert dtype_for_capability((7, 5)) == (torch.float16, [f"compute capability 7.5 {why} float16", F16_RISK])
    assert dtype_for_capability((6, 1)) == (torch.float32, [f"compute capability 6.1 {why} float32"])
