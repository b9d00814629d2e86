"""The configuration as frozen dataclasses: moshi-server's tables and, beside them, our own.

This module knows what a configuration is; ``config_file.py`` knows how to read one from TOML. Field names are the keys
of the file. moshi-server's keys that have no effect on the batched path are checked on reading and not kept.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from shared.allowed import Choice, Expanded, Range, Shape, said
from shared.number_formats import NUMBER_FORMATS
from shared.units import (
    DEFAULT_WINDOW_FRAMES,
    LEAST_GATEWAY_TIMEOUT_S,
    MAX_CODEBOOKS,
    MAX_HEADS,
    MAX_SLOTS,
    words_delay_frames,
)

Count = Annotated[int, Range(1, 1 << 31)]
Width = Annotated[int, Range(1, 1 << 16)]
Layers = Annotated[int, Range(1, 1024)]
Bytes = Annotated[int, Range(1024, 1 << 40)]
Period = Annotated[float, Range(1.0, above=True)]
MOST_SECONDS: Final = 1_000_000_000
"""Some thirty years; timers overflow at a multiple of it."""
Seconds = Annotated[float, Range(0.0, MOST_SECONDS, above=True)]
VocabularySize = Annotated[int, Range(4, 1 << 31)]
"""Ids 0 (end of word) and 3 (padding) have a meaning, so there are at least four."""
Buffer = Annotated[float, Range(0.08, MOST_SECONDS)]
"""Seconds of audio that may wait: one frame at least, for only whole ones leave."""
Patience = Annotated[float, Range(0.0, MOST_SECONDS)]
"""Seconds that may be none."""
FileReference = Annotated[
    str,
    Shape(
        r"hf://[^/@]+/[^/@]+(@[^/@]+)?(/[^/]+)+|(?!hf://)[^\x00]+",
        'a path, or "hf://owner/repo/file", or "hf://owner/repo@revision/file"',
    ),
    Expanded(),
]
Route = Annotated[
    str,
    Shape(
        r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)+/?", 'a path like "/api/asr-streaming", without "." and ".." as its parts'
    ),
]
"""Clients take such parts for steps to other folders, and ask for a path without them."""
Key = Annotated[
    str,
    Shape(
        r"(?!sha256:)\S.*|sha256:[0-9a-fA-F]{64}",
        'a text that starts with no space, or "sha256:" and 64 hexadecimal digits',
    ),
]
"""As clients send it, or the SHA-256 of that."""
Folder = Annotated[str, Shape(r"[^\x00]+", "the path of a folder"), Expanded()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraHeadsConfig:
    """``[modules.NAME.model.extra_heads]``: the pause predictors."""

    num_heads: Annotated[int, Range(1, MAX_HEADS)]
    dim: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousConditioner:
    """A conditioner of ``type = "ContinuousAttribute"``."""

    dim: Annotated[int, Range(4, 1 << 31)]
    scale_factor: float
    max_period: Period


@dataclass(frozen=True, slots=True, kw_only=True)
class LutConditioner:
    """A conditioner of ``type = "Lut"``."""

    n_bins: Count
    dim: Count
    possible_values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """``[modules.NAME.model.transformer]``, the keys that matter."""

    d_model: Width
    num_heads: Width
    num_layers: Layers
    dim_feedforward: Annotated[int, Range(2, 1 << 20)]
    """moshi-server's number, from which the hidden width follows: see ``hidden``."""
    context: Count
    max_period: Period

    @property
    def hidden(self) -> int:
        """Width of the gated feed-forward. Source: moshi-server (11 d / 4 if ``dim_feedforward`` is 4 d, else 2/3)."""
        if self.dim_feedforward == 4 * self.d_model:
            return 11 * self.d_model // 4
        return 2 * self.dim_feedforward // 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LmConfig:
    """``[modules.NAME.model]``: the decoder-only language model."""

    audio_vocab_size: Annotated[int, Range(2, 1 << 16)]
    text_in_vocab_size: VocabularySize
    text_out_vocab_size: VocabularySize
    audio_codebooks: Annotated[int, Range(1, MAX_CODEBOOKS)]
    transformer: TransformerConfig
    extra_heads: ExtraHeadsConfig | None = None
    conditioners: dict[str, ContinuousConditioner | LutConditioner] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiConfig:
    """``[modules.NAME.mimi]``, ours: the size of the audio encoder; the defaults are the published one."""

    n_filters: Annotated[int, Range(2, 1 << 12)] = 64
    ratios: tuple[Count, ...] = (4, 5, 6, 8)
    """In encoder order; their product times 2 is one frame, 1920 samples."""
    dimension: Width = 512
    num_layers: Layers = 8
    num_heads: Width = 8
    dim_feedforward: Annotated[int, Range(1, 1 << 20)] = 2048
    context: Annotated[int, Range(2, 1 << 31)] = 250
    """In latents, of which a frame brings two."""
    max_period: Period = 10_000.0
    codebook_size: Annotated[int, Range(1, 65_535)] = 2048
    codebook_dim: Width = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleConfig:
    """``[modules.NAME]`` with ``type = "BatchedAsr"``: one model behind one path."""

    name: str
    path: Route
    lm_model_file: FileReference
    text_tokenizer_file: FileReference
    audio_tokenizer_file: FileReference
    asr_delay_in_tokens: Annotated[int, Range(0, 2_000)]
    """At most what a session that moves can bring along, twice over."""
    batch_size: Annotated[int, Range(1, MAX_SLOTS)]
    model: LmConfig
    mimi: MimiConfig = field(default_factory=MimiConfig)
    temperature: Annotated[float, Range(0.0, 100.0)] = 0.0
    conditioning_delay: Annotated[float, Range(0.0, 60.0)] | None = None
    conditioning_learnt_padding: bool = False
    log_frequency_s: Annotated[float, Range(0.08, MOST_SECONDS)] | None = None
    dtype_override: Annotated[str, Choice(NUMBER_FORMATS)] | None = None
    silence_prefix_s: Annotated[float, Range(0.0, 60.0)] = 0.0
    """Ours: silence fed before files and for clients that ask (the 2.6B model wants 1.0)."""

    @property
    def delay_frames(self) -> int:
        """D, by how many frames the words trail the audio."""
        return words_delay_frames(self.asr_delay_in_tokens, self.conditioning_delay)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """``[gateway]``, ours: the limits of one gateway process. Every key has a default."""

    host: Annotated[str, Shape(r"\S+", "a host name or address")] = said("where it listens", default="127.0.0.1")
    port: Annotated[int, Range(0, 65_535)] = said("where it listens; 0: any free port", default=8080)
    allow_no_keys: bool = said("serve without authorized_ids, on a loopback address only", default=False)
    max_message_bytes: Bytes = said("of one WebSocket message", default=1 << 20)
    max_buffered_audio_s: Buffer = said(
        "decoded audio that may wait for credit in one session while audio_budget_bytes lasts", default=60.0
    )
    min_buffered_audio_s: Buffer = said("decoded audio that every session may hold, budget or not", default=2.0)
    audio_budget_bytes: Bytes = said("waiting audio of all sessions", default=256 << 20)
    output_buffer_bytes: Bytes = said("output that may wait for a client that reads slowly", default=64 << 10)
    slow_consumer_s: Seconds = said("how long it may wait before the client is closed", default=15.0)
    ping_after_s: Seconds = said("without output until a client is pinged", default=10.0)
    silent_client_s: Seconds = said("without any sign of life until a client is dropped", default=20.0)
    idle_client_s: Seconds = said("without a message until a client is dropped", default=120.0)
    # Below 0.2 s: some clients take a silence of that length for Ready; others give a service 0.5 s in all.
    slot_wait_s: Patience = said("how long a live session waits for a worker with a free slot to ask", default=0.15)
    move_wait_s: Patience = said(
        "how long a session whose worker is lost waits for another; 0: it ends with its worker", default=10.0
    )
    replay_s: Annotated[float, Range(0.0, 60.0)] = said(
        "of a session that another worker hears again: longer is nearer to what the model knew, and takes longer",
        default=5.0,
    )
    replay_budget_bytes: Bytes = said("audio of all sessions that is kept for that", default=256 << 20)
    max_sessions: Count = said("sessions open at once in one gateway process, files included", default=4096)
    max_body_bytes: Bytes = said("of an uploaded file", default=64 << 20)
    max_file_s: Seconds = said("of audio in a file", default=7200.0)
    decode_timeout_s: Seconds = said("for decoding a file", default=60.0)
    body_timeout_s: Seconds = said("for uploading a file", default=60.0)
    header_timeout_s: Seconds = said("for a request's headers", default=10.0)
    file_queue_length: Annotated[int, Range(0, 1 << 20)] = said(
        "files that may be on their way to a slot; 0: none are taken", default=64
    )
    file_wait_s: Patience = said("how long a file waits for a slot", default=100.0)
    drain_s: Patience = said("how long sessions and files may go on after SIGTERM", default=10.0)
    spool_dir: Annotated[str, Shape(r"[^\x00]*", "the path of a folder"), Expanded()] = said(
        "folder for uploaded files; empty: the system's temporary folder", default=""
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """``[worker]``, ours: the settings of one worker process. Every key has a default."""

    device: Annotated[str, Shape(r"auto|cpu|cuda(:\d+)?", '"auto", "cpu", "cuda" or "cuda:N"')] = said(
        "what the model runs on", default="auto"
    )
    threads: Annotated[int, Range(1, 1024)] = said("of one step on CPU", default=1)
    cpu_weights: Annotated[str, Choice(("f32", "bf16", "int8", "auto"))] = said(
        'number format of the language model\'s weights on CPU: "f32" is exact, fewer bits are faster for large models,'
        ' "auto" is decided by timing them at start-up',
        default="f32",
    )
    kv_cache: Annotated[str, Choice(("bf16", "int8", "fp8"))] | None = said(
        "number format of the language model's caches; default: the model's. 8 bits hold twice the sessions of bf16",
        default=None,
    )
    attention: Annotated[str, Choice(("auto", "torch"))] = said(
        'on CUDA: "auto" reads the caches with our kernel where that works and is faster, "torch" never does',
        default="auto",
    )
    window_frames: Annotated[int, Range(1, MAX_SLOTS)] = said(
        "frames that a gateway may send ahead in a session", default=DEFAULT_WINDOW_FRAMES
    )
    gateway_timeout_s: Annotated[float, Range(LEAST_GATEWAY_TIMEOUT_S)] = said(
        "silent for longer, a gateway loses its slots", default=5.0
    )
    drain_s: Patience = said("how long sessions may go on after SIGTERM", default=30.0)
    max_sessions: Count | None = said(
        "sessions admitted at once; default: as many as a GPU was measured to hold, on CPU the batch size", default=None
    )
    measure_s: Annotated[float, Range(0.0, 600.0)] = said(
        "about how long steps are timed at start-up to find that out; 0: not at all", default=2.0
    )
    reserve_share: Annotated[float, Range(0.0, 0.9)] = said(
        "share of the measured sessions that nobody gets, so that a GPU can catch up after a burst", default=0.1
    )
    file_share: Annotated[float, Range(0.0, 1.0)] = said(
        "share of the admitted sessions that files may be; at least one", default=0.25
    )
    seed: Annotated[int, Range(0, (1 << 63) - 1)] = said(
        "of the sampling, for temperatures above 0", default=299_792_458
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """One configuration file."""

    source: Path
    """The TOML file; relative paths that are not in the working directory are looked for beside it."""
    static_dir: Folder
    log_dir: Folder
    """Relative to the working directory; made when it is missing."""
    instance_name: Annotated[str, Shape(r"[^/\x00]+", 'a text without "/"'), Expanded()]
    authorized_ids: tuple[Key, ...] = field(default=(), repr=False)
    modules: tuple[ModuleConfig, ...]
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)

    def module(self, name: str | None) -> ModuleConfig:
        """Return the module called ``name``; None means the only one.

        Raises:
            KeyError: there is no such module, or None was given and there are several.
        """
        if name is None and len(self.modules) == 1:
            return self.modules[0]
        for module in self.modules:
            if module.name == name:
                return module
        raise KeyError(name)
