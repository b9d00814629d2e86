"""From a module's configuration and its three files to a model that is ready to step.

The sizes of the configuration are compared with the headers of the files before any memory is taken; everything that
is wrong with all three files is one error.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeVar

import torch
from torch import Tensor

from asr_worker.core.model import ModelFacts
from asr_worker.model.checkpoint import Header, Need, fill, problems_of, read_header, require_finite
from asr_worker.model.conditioner import condition_need
from asr_worker.model.cpu_weights import pack_lm
from asr_worker.model.device_step import DeviceStep
from asr_worker.model.kv_cache import KV_FORMATS
from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import LATENTS_PER_FRAME, MimiEncoder
from asr_worker.model.needs import LM_PREFIX, MIMI_PREFIX, hidden_width, layer_problems, lm_needs, mimi_needs
from asr_worker.model.placement import choose_device, choose_dtype
from asr_worker.model.sampling import Sampler
from asr_worker.model.step import TorchAsrModel
from asr_worker.model.tokens import Tokenizer
from shared.allocator import keep_freed_memory
from shared.config import ModuleConfig
from shared.errors import CheckpointError, ConfigError, ModelFaultError

KEPT_BYTES: Final = 512 << 20
"""What a step on CPU lets go is kept for the next one, up to this."""

PADDED_TOKENS: Final = 128
"""Vocabularies are padded to a multiple of at most this."""

_SAMPLE_BYTES: Final = 4096
_N_SAMPLES: Final = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The three files of a module, on this machine."""

    lm: Path
    mimi: Path
    tokenizer: Path


def load_model(
    module: ModuleConfig,
    files: ModelFiles,
    *,
    device: str,
    threads: int,
    seed: int,
    capture: bool = True,
    is_prepared: bool = False,
    kv_cache: str | None = None,
    cpu_weights: str = "f32",
    attention: str = "auto",
) -> TorchAsrModel:
    """Load a module's model and warm it up.

    Sets the process's number of torch threads and its CUDA device, switches off its use of TF32, and on CPU has freed
    memory kept.

    Args:
        module: sizes and settings.
        files: as the module names them, fetched and resolved.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of one step on CPU.
        seed: of the sampling noise.
        capture: on CUDA, run the step as captured graphs.
        is_prepared: also on CPU, step by an index in prepared sizes, as is always done on CUDA.
        kv_cache: number format of the language model's caches, of ``KV_FORMATS``; None: the model's dtype.
        cpu_weights: on CPU, number format of the language model's weights: of ``CPU_WEIGHTS``, or ``auto``.
        attention: on CUDA, ``auto`` or ``torch``: see ``TorchAsrModel.start``.

    Raises:
        CheckpointError: something is wrong with the files; names everything.
        ConfigError: the device, a number format or a condition is impossible, or the memory too small.
        ModelFaultError: the device failed.
    """
    place = _set_up_torch(device, threads)
    dtype, warnings = choose_dtype(place, module.dtype_override)
    lm_header, mimi_header, tokenizer = _open_files(files)
    problems, tokenizer_warnings = _tokenizer_problems(files, tokenizer, module.model.text_out_vocab_size)
    hidden = hidden_width(module.model.transformer, lm_header)
    # First without memory, only to compare shapes.
    lm, mimi = _build(module, hidden, dtype, torch.device("meta"))
    problems += problems_of(lm_header, _lm_needs(module, lm))
    problems += problems_of(mimi_header, mimi_needs(mimi))
    problems += layer_problems(lm_header, LM_PREFIX, module.model.transformer.num_layers)
    problems += layer_problems(mimi_header, MIMI_PREFIX, module.mimi.num_layers)
    if problems:
        raise CheckpointError(*problems)
    lm, mimi = _place(module, lm_header, mimi_header, place=place, dtype=dtype)
    with _room_for(module, place):
        weights = pack_lm(lm, cpu_weights, n_rows=module.batch_size)
    model = TorchAsrModel(
        step=_with_slots(module, lm, mimi, seed=seed, kv_cache=kv_cache),
        tokenizer=tokenizer,
        facts=_facts(module, tokenizer, fingerprint(module, lm_header, mimi_header, files.tokenizer), place, dtype),
        is_prepared=is_prepared or place.type == "cuda",
        warnings=(*warnings, *tokenizer_warnings),
    )
    if place.type == "cpu":
        keep_freed_memory(KEPT_BYTES)
    model.started["kv_cache"] = kv_cache or model.facts.dtype
    if weights is not None:
        model.started["cpu_weights"] = weights
    model.start(capture=capture, attention=attention)
    return model


def _set_up_torch(device: str, threads: int) -> torch.device:
    """Set what is the whole process's; return where the model goes."""
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    # It plans for each new shape on the host; the other fused attention takes any mask and can be captured.
    torch.backends.cuda.enable_cudnn_sdp(False)
    place = choose_device(device)
    if place.type == "cuda":
        # Pinned memory, streams, graphs and kernels are the current device's.
        try:
            torch.cuda.set_device(place)
        except RuntimeError as error:
            message = f"{place} cannot be used: {str(error).partition(chr(10))[0]}"
            raise ModelFaultError(message) from error
    return place


def _build(
    module: ModuleConfig, hidden: int, dtype: torch.dtype, device: torch.device
) -> tuple[LanguageModel, MimiEncoder]:
    """Make both models on a device; their numbers are whatever memory holds."""
    with device:
        lm = LanguageModel(module.model, hidden=hidden, dtype=dtype)
        mimi = MimiEncoder(module.mimi, module.model.audio_codebooks)
    return lm.requires_grad_(requires_grad=False), mimi.requires_grad_(requires_grad=False)


def _place(
    module: ModuleConfig, lm_header: Header, mimi_header: Header, *, place: torch.device, dtype: torch.dtype
) -> tuple[LanguageModel, MimiEncoder]:
    """Bring the weights onto the device.

    Raises:
        ConfigError: the device has no room.
    """
    with _room_for(module, place):
        lm, mimi = _build(module, hidden_width(module.model.transformer, lm_header), dtype, place)
        fill(lm_header, _lm_needs(module, lm))
        fill(mimi_header, mimi_needs(mimi))
        require_finite(lm_header, lm)
        require_finite(mimi_header, mimi)
        mimi.pack(module.batch_size)
    return lm, mimi


def _with_slots(
    module: ModuleConfig, lm: LanguageModel, mimi: MimiEncoder, *, seed: int, kv_cache: str | None
) -> DeviceStep:
    """Take memory for all slots.

    Raises:
        ConfigError: the device has no room.
    """
    place = lm.text_emb.device
    with _room_for(module, place):
        sampler = Sampler(temperature=module.temperature, seed=seed, device=place)
        kv_format = None if kv_cache is None else KV_FORMATS[kv_cache]
        return DeviceStep(lm=lm, mimi=mimi, sampler=sampler, n_slots=module.batch_size, kv_format=kv_format)


@contextmanager
def _room_for(module: ModuleConfig, place: torch.device) -> Iterator[None]:
    """Say where room was lacking.

    Raises:
        ConfigError: it was.
    """
    try:
        yield
    except (RuntimeError, OSError, OverflowError, MemoryError) as error:
        # Memory, nearly always: the caches of all slots are the most.
        reason = str(error).partition("\n")[0]
        msg = (
            f"modules.{module.name}: no place on {place} for the model with batch_size = {module.batch_size}: {reason}"
        )
        raise ConfigError(msg) from error


def fingerprint(module: ModuleConfig, lm: Header, mimi: Header, tokenizer: Path) -> str:
    """Return a sha256 over what decides a model's words: sizes, settings, files.

    Of the weights it covers the headers, the sizes and 16 samples of 4 KiB spread over the file, not every byte:
    hashing gigabytes would delay each start. Two files that differ elsewhere only have the same fingerprint.

    Number formats (dtype, ``kv_cache``, ``cpu_weights``) and the device are no part of it, though they change a few
    tokens: what moves with a session is text tokens, codes and audio, which mean the same everywhere, and the caches
    are computed anew. A session that could move to no card of another generation would be lost instead.
    """
    digest = hashlib.sha256()
    settings = {
        "model": asdict(module.model),
        "mimi": asdict(module.mimi),
        "delay_frames": module.delay_frames,
        "temperature": module.temperature,
        "conditioning_delay": module.conditioning_delay,
        "conditioning_learnt_padding": module.conditioning_learnt_padding,
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for header in (lm, mimi):
        digest.update(header.file_bytes.to_bytes(8, "little"))
        digest.update(header.raw)
        data_start = header.file_bytes - header.data_bytes
        with header.path.open("rb") as file:
            for i in range(_N_SAMPLES):
                file.seek(data_start + i * header.data_bytes // _N_SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    digest.update(tokenizer.read_bytes())
    return digest.hexdigest()


def _open_files(files: ModelFiles) -> tuple[Header, Header, Tokenizer]:
    """Open all three files, or say of all three what is wrong."""
    problems: list[str] = []

    def attempt(opener: Callable[[], T]) -> T | None:
        try:
            return opener()
        except CheckpointError as error:
            problems.extend(error.problems)
            return None

    lm = attempt(lambda: read_header("lm_model_file", files.lm))
    mimi = attempt(lambda: read_header("audio_tokenizer_file", files.mimi))
    tokenizer = attempt(lambda: Tokenizer(files.tokenizer))
    if lm is None or mimi is None or tokenizer is None:
        raise CheckpointError(*problems)
    return lm, mimi, tokenizer


def _tokenizer_problems(files: ModelFiles, tokenizer: Tokenizer, vocabulary: int) -> tuple[list[str], list[str]]:
    """Compare the tokenizer with the model's vocabulary; return problems and warnings.

    Tables are padded, so a model may have a few tokens more than pieces; many more are suspicious, and pieces that no
    token can mean are another model's.
    """
    what = (
        f"text_tokenizer_file {files.tokenizer}: has {tokenizer.n_pieces} pieces, text_out_vocab_size is {vocabulary}"
    )
    if tokenizer.n_pieces > vocabulary:
        return [what], []
    if tokenizer.n_pieces <= vocabulary - PADDED_TOKENS:
        return [], [f"{what}; tokens without a piece will have no text"]
    return [], []


def _lm_needs(module: ModuleConfig, lm: LanguageModel) -> list[Need]:
    """Return the language model's needs and, for models that have one, the condition's."""

    def put_condition(condition: Tensor) -> None:
        lm.condition = condition.to(lm.text_emb.device, lm.text_emb.dtype)

    condition = condition_need(module, put_condition)
    return [*lm_needs(lm), *([condition] if condition else [])]


def _facts(
    module: ModuleConfig, tokenizer: Tokenizer, digest: str, device: torch.device, dtype: torch.dtype
) -> ModelFacts:
    return ModelFacts(
        n_slots=module.batch_size,
        n_heads=module.model.extra_heads.num_heads if module.model.extra_heads else 0,
        n_codebooks=module.model.audio_codebooks,
        n_text_tokens=module.model.text_out_vocab_size,
        n_codes=module.mimi.codebook_size,
        delay_frames=module.delay_frames,
        context_frames=module.model.transformer.context,
        codec_context_frames=-(-module.mimi.context // LATENTS_PER_FRAME),
        whole_words=tokenizer.whole_words,
        fingerprint=digest,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
    )
