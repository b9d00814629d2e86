"""The numbers are those of the published models: their files' sizes and the caches that follow from their shapes."""

import pytest

from asr_cli.capacity import (
    MemoryNeed,
    lm_cache_bytes,
    lm_cache_numbers,
    lm_parameters,
    memory_need,
    mimi_cache_numbers,
    mimi_convolution_numbers,
    mimi_parameters,
)
from asr_cli.torch_probe import CudaDevice, TorchFacts, read_facts
from shared.config import ExtraHeadsConfig, LmConfig, MimiConfig, ModuleConfig, TransformerConfig

LM_1B = LmConfig(
    audio_vocab_size=2049,
    text_in_vocab_size=8001,
    text_out_vocab_size=8000,
    audio_codebooks=32,
    transformer=TransformerConfig(
        d_model=2048, num_heads=16, num_layers=16, dim_feedforward=8192, context=750, max_period=100_000.0
    ),
    extra_heads=ExtraHeadsConfig(num_heads=4, dim=6),
)
LM_2_6B = LmConfig(
    audio_vocab_size=2049,
    text_in_vocab_size=4001,
    text_out_vocab_size=4000,
    audio_codebooks=32,
    transformer=TransformerConfig(
        d_model=2048, num_heads=32, num_layers=48, dim_feedforward=8192, context=375, max_period=100_000.0
    ),
)


MODULE_1B = ModuleConfig(
    name="asr",
    path="/api/asr-streaming",
    lm_model_file="a",
    text_tokenizer_file="b",
    audio_tokenizer_file="c",
    asr_delay_in_tokens=6,
    batch_size=64,
    model=LM_1B,
)


def test_parameters_are_those_of_the_published_language_models() -> None:
    assert lm_parameters(LM_1B) == 989_253_632
    assert lm_parameters(LM_2_6B) == 2_617_118_720


def test_caches_are_those_of_the_published_language_models() -> None:
    assert 2 * lm_cache_numbers(LM_1B) == 98_304_000
    assert 2 * lm_cache_numbers(LM_2_6B) == 147_456_000


def test_a_cache_in_8_bits_has_a_scale_for_each_head_and_position() -> None:
    assert lm_cache_bytes(LM_1B, None, 4) == 4 * 49_152_000
    assert lm_cache_bytes(LM_1B, "bf16", 4) == 98_304_000
    assert lm_cache_bytes(LM_1B, "int8", 2) == lm_cache_bytes(LM_1B, "fp8", 2) == 49_152_000 + 2 * 16 * 750 * 16 * 2
    assert lm_cache_bytes(LM_2_6B, "int8", 2) == 73_728_000 + 2 * 48 * 375 * 32 * 2


def test_mimi_has_the_published_size() -> None:
    published = MimiConfig()
    assert mimi_parameters(published, 32) == 12_628_256 + 25_190_400 + 1_048_576 + 262_144 + 16_842_752
    assert 4 * mimi_cache_numbers(published) == 8_192_000
    assert mimi_convolution_numbers(published) == 11_526


def test_need_of_a_module_is_the_sum_of_its_parts() -> None:
    module = MODULE_1B
    in_8_bits = memory_need(module, lm_bytes_per_number=2, on_gpu=True, kv_cache="int8")
    need = memory_need(module, lm_bytes_per_number=2, on_gpu=True)
    assert need.per_slot - in_8_bits.per_slot == 98_304_000 - 49_920_000
    assert need.weights == 2 * 989_253_632 + 4 * 55_972_128
    assert need.per_slot == 98_304_000 + 8_192_000 + 4 * 11_526 + 8_000_000


@pytest.mark.parametrize(("cpu_weights", "n_bytes"), [("f32", 4), ("auto", 4), ("bf16", 2), ("int8", 1)])
def test_weights_in_fewer_bits_are_those_of_products_on_cpu(cpu_weights: str, n_bytes: int) -> None:
    module = MODULE_1B
    exact = memory_need(module, lm_bytes_per_number=4, on_gpu=False)
    need = memory_need(module, lm_bytes_per_number=4, on_gpu=False, cpu_weights=cpu_weights)
    # Sixteen layers and 8000 text tokens; embeddings and norms stay.
    assert exact.weights - need.weights == (4 - n_bytes) * (16 * (4 * 2048**2 + 3 * 2048 * 5632) + 8000 * 2048)
    assert need.per_slot == exact.per_slot
    assert need.while_loading == exact.weights
    on_gpu = memory_need(module, lm_bytes_per_number=4, on_gpu=True, cpu_weights=cpu_weights)
    assert on_gpu.weights == exact.weights


def test_nothing_fits_where_the_file_s_numbers_have_no_room_before_they_are_packed() -> None:
    need = MemoryNeed(weights=1_000, per_slot=100, reserve=500, while_loading=4_000)
    assert [need.slots_that_fit(free) for free in (4_499, 4_500)] == [0, 29]


def test_slots_fit_into_what_weights_reserve_and_the_scratch_slot_leave() -> None:
    need = MemoryNeed(weights=1_000, per_slot=100, reserve=500)
    assert [need.slots_that_fit(free) for free in (0, 1_699, 1_700, 2_100)] == [0, 0, 1, 5]


def test_facts_about_gpus_are_read_from_the_probe() -> None:
    document = {"version": "2.13.0", "devices": [{"name": "H200", "capability": [9, 0], "free": 7, "total": 9}]}
    device = CudaDevice(name="H200", capability=(9, 0), free_bytes=7, total_bytes=9)
    assert read_facts(document) == TorchFacts(version="2.13.0", devices=(device,))
