"""The configuration as frozen dataclasses: moshi-server's tables and, beside them, our own.

This module knows what a configuration is; ``config_file.py`` knows how to read one from TOML. Field names are the keys
of the file. moshi-server's keys that have no effect on the batched path are checked on reading and not kept.
"""

from dataclasses import dataclass, field
from pathlib import Path

from shared.credit import DEFAULT_WINDOW_FRAMES
from shared.units import words_delay_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraHeadsConfig:
    """``[modules.NAME.model.extra_heads]``: the pause predictors."""

    num_heads: int
    dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousConditioner:
    """A conditioner of ``type = "ContinuousAttribute"``."""

    dim: int
    scale_factor: float
    max_period: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LutConditioner:
    """A conditioner of ``type = "Lut"``."""

    n_bins: int
    dim: int
    possible_values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """``[modules.NAME.model.transformer]``, the keys that matter."""

    d_model: int
    num_heads: int
    num_layers: int
    dim_feedforward: int
    """moshi-server's number, from which the hidden width follows: see ``hidden``."""
    context: int
    max_period: float

    @property
    def hidden(self) -> int:
        """Width of the gated feed-forward. Source: moshi-server (11 d / 4 if ``dim_feedforward`` is 4 d, else 2/3)."""
        if self.dim_feedforward == 4 * self.d_model:
            return 11 * self.d_model // 4
        return 2 * self.dim_feedforward // 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LmConfig:
    """``[modules.NAME.model]``: the decoder-only language model."""

    audio_vocab_size: int
    text_in_vocab_size: int
    text_out_vocab_size: int
    audio_codebooks: int
    transformer: TransformerConfig
    extra_heads: ExtraHeadsConfig | None = None
    conditioners: dict[str, ContinuousConditioner | LutConditioner] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiConfig:
    """``[modules.NAME.mimi]``, ours: the size of the audio encoder; the defaults are the published one."""

    n_filters: int = 64
    ratios: tuple[int, ...] = (4, 5, 6, 8)
    """In encoder order; their product times 2 is one frame, 1920 samples."""
    dimension: int = 512
    num_layers: int = 8
    num_heads: int = 8
    dim_feedforward: int = 2048
    context: int = 250
    max_period: float = 10_000.0
    codebook_size: int = 2048
    codebook_dim: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleConfig:
    """``[modules.NAME]`` with ``type = "BatchedAsr"``: one model behind one path."""

    name: str
    path: str
    lm_model_file: str
    text_tokenizer_file: str
    audio_tokenizer_file: str
    asr_delay_in_tokens: int
    batch_size: int
    model: LmConfig
    mimi: MimiConfig = field(default_factory=MimiConfig)
    temperature: float = 0.0
    conditioning_delay: float | None = None
    conditioning_learnt_padding: bool = False
    log_frequency_s: float | None = None
    dtype_override: str | None = None
    silence_prefix_s: float = 0.0
    """Ours: silence fed before files and for clients that ask (the 2.6B model wants 1.0)."""

    @property
    def delay_frames(self) -> int:
        """D, by how many frames the words trail the audio."""
        return words_delay_frames(self.asr_delay_in_tokens, self.conditioning_delay)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """``[gateway]``, ours: the limits of one gateway process. Every key has a default."""

    host: str = "127.0.0.1"
    port: int = 8080
    allow_no_keys: bool = False
    """Serve without ``authorized_ids``; only while bound to a loopback address."""
    max_message_bytes: int = 1 << 20
    max_buffered_audio_s: float = 60.0
    """Decoded audio that may wait for credit in one session while ``audio_budget_bytes`` lasts."""
    min_buffered_audio_s: float = 2.0
    """Decoded audio that every session may hold, budget or not."""
    audio_budget_bytes: int = 256 << 20
    output_buffer_bytes: int = 64 << 10
    slow_consumer_s: float = 15.0
    ping_after_s: float = 10.0
    silent_client_s: float = 20.0
    idle_client_s: float = 120.0
    slot_wait_s: float = 0.2
    max_sessions: int = 4096
    """WebSocket sessions open at once in one gateway process."""
    max_body_bytes: int = 64 << 20
    max_file_s: float = 7200.0
    decode_timeout_s: float = 60.0
    body_timeout_s: float = 60.0
    header_timeout_s: float = 10.0
    file_queue_length: int = 64
    file_wait_s: float = 100.0
    drain_s: float = 10.0
    spool_dir: str = ""
    """Folder for uploaded files; empty: the system's temporary folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """``[worker]``, ours: the settings of one worker process. Every key has a default."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    threads: int = 1
    """Threads of one step on CPU."""
    window_frames: int = DEFAULT_WINDOW_FRAMES
    gateway_timeout_s: float = 5.0
    drain_s: float = 30.0
    max_sessions: int | None = None
    """Sessions admitted at once; default: the batch size."""
    file_share: float = 0.25
    """Share of the slots that files may hold while live sessions want them; at least one slot."""
    seed: int = 299_792_458


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """One configuration file."""

    source: Path
    """The TOML file; relative paths that are not in the working directory are looked for beside it."""
    static_dir: str
    log_dir: str
    instance_name: str
    authorized_ids: tuple[str, ...]
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
