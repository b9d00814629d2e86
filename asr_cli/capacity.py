"""How much memory a module needs on its device, from its configuration alone. Pure arithmetic.

    weights (once)  +  slots x (KV cache of the language model + KV cache and convolutions of Mimi + activations)

Checked against the published models: 1B has 989 253 632 parameters and 98.3 MB of cache for each slot, Mimi's encoder
55.97 M parameters and 8.19 MB.
"""

from dataclasses import dataclass
from typing import Final

from shared.config import LmConfig, MimiConfig, ModuleConfig

FLOAT32_BYTES: Final = 4
BF16_BYTES: Final = 2
SCALE_BYTES: Final = 2
PACKED_BYTES: Final = {"f32": 4, "bf16": 2, "int8": 1, "auto": 4}
"""Of a weight, by ``cpu_weights``; ``auto`` may keep all of float32."""
SCRATCH_SLOTS: Final = 1
"""Steps in prepared sizes are filled up with a slot that no session gets."""
MIMI_FRAMES_PER_STEP: Final = 2
SEANET_KERNEL: Final = 7
RESIDUAL_KERNEL: Final = 3
LAST_KERNEL: Final = 3
DOWNSAMPLE_KERNEL: Final = 4

ACTIVATION_BYTES_PER_SLOT: Final = 8_000_000
"""Room for one step's intermediate results: estimates for the published models are 4.5 to 9 MB."""

GPU_RESERVE_BYTES: Final = 3_000_000_000
"""Kept free for the CUDA context, libraries and graphs."""

CPU_RESERVE_BYTES: Final = 600_000_000
"""What a worker process takes beside weights and slots, mostly torch itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes on the device."""

    weights: int
    per_slot: int
    reserve: int
    while_loading: int = 0
    """Weights before they are packed into fewer bits, when no slot is there yet."""

    def slots_that_fit(self, free_bytes: int) -> int:
        """Return how many slots fit into ``free_bytes``, the reserve left alone."""
        if free_bytes < self.reserve + self.while_loading:
            return 0
        return max(0, (free_bytes - self.reserve - self.weights) // self.per_slot - SCRATCH_SLOTS)


def memory_need(
    module: ModuleConfig,
    *,
    lm_bytes_per_number: int,
    on_gpu: bool,
    kv_cache: str | None = None,
    cpu_weights: str = "f32",
) -> MemoryNeed:
    """Return what ``module`` needs.

    Mimi is float32 always, the language model takes ``lm_bytes_per_number``, its cache as well unless ``kv_cache``
    names another format, and in float32 on CPU its products' weights what ``cpu_weights`` says.
    """
    lm_weights = loaded = lm_parameters(module.model) * lm_bytes_per_number
    if lm_bytes_per_number == FLOAT32_BYTES and not on_gpu:
        lm_weights -= lm_product_weights(module.model) * (FLOAT32_BYTES - PACKED_BYTES[cpu_weights])
    mimi_weights = mimi_parameters(module.mimi, module.model.audio_codebooks) * FLOAT32_BYTES
    return MemoryNeed(
        weights=lm_weights + mimi_weights,
        per_slot=(
            lm_cache_bytes(module.model, kv_cache, lm_bytes_per_number)
            + (mimi_cache_numbers(module.mimi) + mimi_convolution_numbers(module.mimi)) * FLOAT32_BYTES
            + ACTIVATION_BYTES_PER_SLOT
        ),
        reserve=GPU_RESERVE_BYTES if on_gpu else CPU_RESERVE_BYTES,
        while_loading=loaded + mimi_weights,
    )


def lm_parameters(model: LmConfig) -> int:
    """Return the number of parameters of the language model."""
    d = model.transformer.d_model
    norms = (2 * model.transformer.num_layers + 1) * d
    embeddings = (model.text_in_vocab_size + model.audio_codebooks * model.audio_vocab_size) * d
    heads = 0 if model.extra_heads is None else model.extra_heads.num_heads * model.extra_heads.dim * d
    return lm_product_weights(model) + norms + embeddings + heads


def lm_product_weights(model: LmConfig) -> int:
    """Return how many of them every step multiplies: the layers' and the text scores'."""
    d, hidden = model.transformer.d_model, model.transformer.hidden
    return model.transformer.num_layers * (4 * d * d + 3 * d * hidden) + model.text_out_vocab_size * d


def lm_cache_numbers(model: LmConfig) -> int:
    """Return how many keys and values the language model keeps for one slot."""
    return 2 * model.transformer.context * model.transformer.d_model * model.transformer.num_layers


def lm_cache_bytes(model: LmConfig, kv_cache: str | None, lm_bytes_per_number: int) -> int:
    """Return how many bytes the language model's keys and values of one slot take."""
    numbers = lm_cache_numbers(model)
    match kv_cache:
        case None:
            return numbers * lm_bytes_per_number
        case "bf16":
            return numbers * BF16_BYTES
        case _:
            # One scale for each head and position.
            return numbers + SCALE_BYTES * numbers * model.transformer.num_heads // model.transformer.d_model


def mimi_parameters(mimi: MimiConfig, n_codebooks: int) -> int:
    """Return the number of parameters of Mimi's encoder with ``n_codebooks`` codebooks."""
    d = mimi.dimension
    layer = 4 * d * d + 2 * d * mimi.dim_feedforward + 6 * d
    quantizer = 2 * d * mimi.codebook_dim + n_codebooks * mimi.codebook_size * (mimi.codebook_dim + 1)
    return seanet_parameters(mimi) + mimi.num_layers * layer + d * d * DOWNSAMPLE_KERNEL + quantizer


def seanet_parameters(mimi: MimiConfig) -> int:
    """Return the number of parameters of Mimi's convolutions."""
    width = mimi.n_filters
    count = width * SEANET_KERNEL + width
    for ratio in mimi.ratios:
        half = width // 2
        count += half * width * RESIDUAL_KERNEL + half + width * half + width
        count += 2 * width * width * 2 * ratio + 2 * width
        width *= 2
    return count + mimi.dimension * width * LAST_KERNEL + mimi.dimension


def mimi_cache_numbers(mimi: MimiConfig) -> int:
    """Return how many keys and values Mimi keeps for one slot."""
    return 2 * mimi.context * mimi.dimension * mimi.num_layers


def mimi_convolution_numbers(mimi: MimiConfig) -> int:
    """Return how many samples of left context Mimi's convolutions keep for one slot."""
    width = mimi.n_filters
    count = SEANET_KERNEL - 1
    for ratio in mimi.ratios:
        # A convolution of kernel k and stride s keeps k - s columns; here 3 - 1 and 2r - r.
        count += (RESIDUAL_KERNEL - 1) * width + ratio * width
        width *= 2
    return count + (LAST_KERNEL - 1) * width + (DOWNSAMPLE_KERNEL - MIMI_FRAMES_PER_STEP) * mimi.dimension
