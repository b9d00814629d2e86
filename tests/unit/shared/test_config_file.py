"""Configuration files: moshi-server's keys as its users write them, and every kind of mistake."""

from pathlib import Path
from typing import Any

import pytest

from shared.config import GatewayConfig, MimiConfig, ServiceConfig, WorkerConfig
from shared.config_file import load_config
from shared.errors import ConfigError


def test_every_value_arrives_where_it_belongs(sample_config: Any, tmp_path: Path) -> None:
    service = sample_config.load(
        sample_config.base + "[modules.asr.model.extra_heads]\nnum_heads = 4\ndim = 6\n"
    ).service

    assert isinstance(service, ServiceConfig)
    assert service.source == tmp_path / "unit.toml"
    assert (service.static_dir, service.log_dir, service.instance_name) == ("./pages", "/var/log/stt", "unit")
    assert service.authorized_ids == ("first key", "second")
    assert (service.gateway, service.worker) == (GatewayConfig(), WorkerConfig())
    module = service.module(None)
    assert (module.name, module.path, module.batch_size, module.delay_frames) == ("asr", "/api/asr", 4, 6)
    assert module.audio_tokenizer_file == "hf://somebody/codec/mimi@125.safetensors"
    assert module.mimi == MimiConfig()
    assert module.model.transformer.hidden == 11 * 512 // 4
    assert module.model.extra_heads is not None
    assert (module.model.extra_heads.num_heads, module.model.extra_heads.dim) == (4, 6)


def test_an_integer_is_accepted_where_a_number_is_meant(sample_config: Any) -> None:
    module = sample_config.load(sample_config.base).service.module("asr")

    assert (type(module.temperature), module.temperature) == (float, 0.0)
    assert (type(module.model.transformer.max_period), module.model.transformer.max_period) == (float, 100_000.0)


SMALL = {"temperature = 0": "temperature = 0.25"}
LARGE = {"audio_codebooks = 20": "audio_codebooks = 32"}
ENGLISH = LARGE | {
    "num_heads = 8": "num_heads = 32",
    "num_layers = 2": "num_layers = 48",
    "context = 750": "context = 375",
    "text_in_vocab_size = 8001": "text_in_vocab_size = 4001",
    "text_out_vocab_size = 8000": "text_out_vocab_size = 4000",
    "asr_delay_in_tokens = 6": "asr_delay_in_tokens = 32",
}
HEADS = "[modules.asr.model.extra_heads]\nnum_heads = 4\ndim = 6\n"


@pytest.mark.parametrize(
    ("edits", "tail", "expected"),
    [
        (ENGLISH, "", (32, 0.0, 32)),
        (LARGE | {"temperature = 0": "temperature = 0.0"}, HEADS, (6, 0.0, 32)),
        (SMALL | {"batch_size = 4": "batch_size = 64  # as many as fit"}, HEADS, (6, 0.25, 20)),
        (SMALL | {"batch_size = 4": "batch_size = 1"}, HEADS, (6, 0.25, 20)),
    ],
    ids=["2.6b", "1b", "unmute-large", "unmute-small"],
)
def test_configurations_of_the_published_sizes_load_without_a_warning(
    sample_config: Any, edits: dict[str, str], tail: str, expected: tuple[int, float, int]
) -> None:
    text = sample_config.changed("d_model = 512", "d_model = 2048").replace('"/var/log/stt"', '"$HOME/tmp/stt-logs"')
    text = text.replace("dim_feedforward = 2048", "dim_feedforward = 8192")
    text = text.replace("batch_size", "conditioning_learnt_padding = true\nbatch_size")
    for old, new in edits.items():
        text = text.replace(old, new)

    loaded = sample_config.load(text + tail)

    assert loaded.warnings == ()
    assert loaded.service.log_dir == "/home/someone/tmp/stt-logs"
    module = loaded.service.modules[0]
    assert (module.delay_frames, module.temperature, module.model.audio_codebooks) == expected
    assert module.model.transformer.hidden == 5632


def test_the_configuration_of_the_demo_model_loads() -> None:
    path = Path(__file__).parents[3] / "asr_worker" / "demo" / "demo.toml"

    loaded = load_config(path, {})

    assert loaded.warnings == ()
    module = loaded.service.module(None)
    assert (module.mimi.n_filters, module.mimi.codebook_size, module.model.transformer.hidden) == (16, 256, 504)


@pytest.mark.parametrize("kind", ["Asr", "PyBatchedAsr", "Tts", "Mimi", "Lm", "Py", "PyPost"])
def test_other_modules_of_moshi_server_are_refused_by_name(sample_config: Any, kind: str) -> None:
    text = sample_config.top + f'[modules.voice]\ntype = "{kind}"\npath = "/api/tts"\nn_q = 24\n'

    assert sample_config.problems(text) == [
        f'[modules.voice] type = "{kind}": of moshi-server\'s modules only "BatchedAsr" is served',
    ]


def test_a_type_that_nobody_knows_is_refused(sample_config: Any) -> None:
    assert sample_config.problems(sample_config.changed('"BatchedAsr"', '"BatchedASR"')) == [
        '[modules.asr] type = "BatchedASR": must be "BatchedAsr"'
    ]


def test_a_type_that_is_no_text_is_refused(sample_config: Any) -> None:
    assert sample_config.problems(sample_config.changed('"BatchedAsr"', '["BatchedAsr"]')) == [
        '[modules.asr] type = ["BatchedAsr"]: must be "BatchedAsr"'
    ]


@pytest.mark.parametrize("text", ["top = " + 5000 * "9", "top = " + 5000 * "["], ids=["long number", "deep list"])
def test_what_the_toml_reader_gives_up_on_is_refused(sample_config: Any, text: str) -> None:
    (problem,) = sample_config.problems(text)
    assert problem.startswith("is no TOML: ")


def test_the_mark_that_some_editors_put_before_a_file_is_skipped(sample_config: Any) -> None:
    assert sample_config.load("\ufeff" + sample_config.base).warnings == ()


SECONDS = "must be a number above 0 and at most 1000000000"
ROUTE = 'must be a path like "/api/asr-streaming", without "." and ".." as its parts'


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("batch_size = 4", 'batch_size = "4"', 'batch_size = "4": must be an integer from 1 to 4096'),
        ("batch_size = 4", "batch_size = 4.0", "batch_size = 4.0: must be an integer from 1 to 4096"),
        ("batch_size = 4", "batch_size = true", "batch_size = true: must be an integer from 1 to 4096"),
        ("batch_size = 4", "batch_size = 0", "batch_size = 0: must be an integer from 1 to 4096"),
        ("batch_size = 4\n", "", "batch_size is missing: an integer from 1 to 4096"),
        ("temperature = 0", "temperature = -1", "temperature = -1: must be a number from 0 to 100"),
        ("temperature = 0", "temperature = nan", "temperature = nan: must be a number from 0 to 100"),
        (
            "temperature = 0",
            "log_frequency_s = 0.0",
            "log_frequency_s = 0.0: must be a number from 0.08 to 1000000000",
        ),
        (
            "temperature = 0",
            "log_frequency_s = 1e300",
            "log_frequency_s = 1e+300: must be a number from 0.08 to 1000000000",
        ),
        ("temperature = 0", 'dtype_override = "fp8"', 'dtype_override = "fp8": must be one of "bf16", "f16", "f32"'),
        ("temperature = 0", 'mimi = "big"', 'mimi = "big": must be a table'),
        ('path = "/api/asr"', 'path = "api"', f'path = "api": {ROUTE}'),
        ('path = "/api/asr"', 'path = "/{x}"', f'path = "/{{x}}": {ROUTE}'),
        ('path = "/api/asr"', 'path = "/api/../x"', f'path = "/api/../x": {ROUTE}'),
        ('path = "/api/asr"', 'path = "/./x"', f'path = "/./x": {ROUTE}'),
        ('path = "/api/asr"', 'path = "/api/.."', f'path = "/api/..": {ROUTE}'),
        ('path = "/api/asr"', 'path = "/api/./"', f'path = "/api/./": {ROUTE}'),
        ('path = "/api/asr"', 'path = "/metrics"', 'path = "/metrics": is a route of the service itself'),
        (
            '"lm.safetensors"',
            '"$WEIGHTS/lm.safetensors"',
            'lm_model_file = "$WEIGHTS/lm.safetensors": the environment variable WEIGHTS is not set',
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(sample_config: Any, old: str, new: str, problem: str) -> None:
    assert sample_config.problems(sample_config.changed(old, new)) == [f"[modules.asr] {problem}"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("$HOME/lm.st", "/home/someone/lm.st"),
        ("a$HOME-$HOME", "a/home/someone-/home/someone"),
        ("costs $5 or ${HOME}", "costs $5 or ${HOME}"),
        ("hf://owner/repo/$HOME", "hf://owner/repo/$HOME"),
    ],
)
def test_variables_are_replaced_where_and_as_moshi_server_does(sample_config: Any, written: str, meant: str) -> None:
    assert (
        sample_config.load(sample_config.changed("lm.safetensors", written)).service.modules[0].lm_model_file == meant
    )


@pytest.mark.parametrize("reference", ["hf://owner/file", "hf://owner/repo@/file", "hf://owner/repo/", "", "a\\u0000"])
def test_a_reference_that_names_no_file_is_refused(sample_config: Any, reference: str) -> None:
    (problem,) = sample_config.problems(sample_config.changed("lm.safetensors", reference))

    assert problem.endswith('must be a path, or "hf://owner/repo/file", or "hf://owner/repo@revision/file"')


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("kv_repeat = 1", "kv_repeat = 2", "kv_repeat = 2: only 1 is supported"),
        ("kv_repeat = 1", "kv_repeat = true", "kv_repeat = true: only 1 is supported"),
        ("causal = true", "causal = false", "causal = false: only true is supported"),
        ("norm_first = true", "norm_first = false", "norm_first = false: only true is supported"),
        ("use_conv_block = false", "use_conv_block = true", "use_conv_block = true: only false is supported"),
        ("bias_attn = false", "bias_attn = true", "bias_attn = true: only false is supported"),
        ('"silu"', '"gelu"', 'gating = "gelu": only "silu" is supported'),
        ('gating = "silu"\n', "", 'gating is missing: only "silu" is supported'),
        ('"RmsNorm"', '"LayerNorm"', 'norm = "LayerNorm": only "RmsNorm" is supported'),
        ('"Rope"', '"Sin"', 'positional_embedding = "Sin": only "Rope" is supported'),
        ("max_seq_len = 40960", "layer_scale = 0.01", "layer_scale = 0.01: only absent is supported"),
        (
            "num_heads = 8",
            "num_heads = 512",
            "d_model = 512: must be num_heads = 512 times an even number (rotary positions pair them)",
        ),
        (
            "num_heads = 8",
            "num_heads = 7",
            "d_model = 512: must be num_heads = 7 times an even number (rotary positions pair them)",
        ),
    ],
)
def test_a_transformer_that_is_not_supported_is_refused(sample_config: Any, old: str, new: str, problem: str) -> None:
    assert sample_config.problems(sample_config.changed(old, new)) == [f"[modules.asr.model.transformer] {problem}"]


def test_all_problems_are_told_at_once(sample_config: Any) -> None:
    text = sample_config.changed("batch_size = 4", "batch_size = 0").replace("kv_repeat = 1", "kv_repeat = 2")
    text = text.replace('instance_name = "unit"\n', "") + '[gateway]\nprot = 1\n[worker]\ndevice = "tpu"\n'

    assert sample_config.problems(text) == [
        'instance_name is missing: a text without "/"',
        '[gateway] prot: unknown key; did you mean "port"?',
        '[worker] device = "tpu": must be "auto", "cpu", "cuda" or "cuda:N"',
        "[modules.asr] batch_size = 0: must be an integer from 1 to 4096",
        "[modules.asr.model.transformer] kv_repeat = 2: only 1 is supported",
    ]


def test_unknown_keys_of_moshi_server_are_warnings_with_a_suggestion(sample_config: Any, tmp_path: Path) -> None:
    text = sample_config.changed("temperature = 0", "temperatur = 0\nvoices = 3") + "[gatewai]\nport = 1\n"

    assert sample_config.load(text).warnings == (
        f'{tmp_path / "unit.toml"}: gatewai: unknown key, ignored; did you mean "gateway"?',
        f'{tmp_path / "unit.toml"}: [modules.asr] temperatur: unknown key, ignored; did you mean "temperature"?',
        f"{tmp_path / 'unit.toml'}: [modules.asr] voices: unknown key, ignored",
    )


def test_a_depformer_is_ignored(sample_config: Any) -> None:
    loaded = sample_config.load(
        sample_config.base
        + "[modules.asr.model.depformer]\nnum_slices = 8\n[modules.asr.model.depformer.transformer]\nx = 1\n"
    )

    assert loaded.warnings == ()


def test_keys_of_clients_are_shown_neither_in_problems_nor_in_a_repr(sample_config: Any) -> None:
    allowed = 'a text that starts with no space, or "sha256:" and 64 hexadecimal digits'
    for wrong in ("7", '" x"', '"sha256:secret"'):
        refused = sample_config.problems(sample_config.changed('["first key", "second"]', f'["first key", {wrong}]'))
        assert refused == [f"authorized_ids: must be a list, each item {allowed}; not so: item 2"]
    assert "first key" not in repr(sample_config.load(sample_config.base).service)


def test_our_own_tables_are_read(sample_config: Any) -> None:
    service = sample_config.load(
        sample_config.base + "[gateway]\nport = 9000\nslot_wait_s = 1\n[worker]\nthreads = 2\nmax_sessions = 3\n"
    ).service

    assert service.gateway == GatewayConfig(port=9000, slot_wait_s=1.0)
    assert service.worker == WorkerConfig(threads=2, max_sessions=3)


def test_two_modules_live_side_by_side(sample_config: Any) -> None:
    service = sample_config.load(sample_config.base + sample_config.module("french")).service

    assert [module.name for module in service.modules] == ["asr", "french"]
    assert service.module("french").path == "/api/french"
    with pytest.raises(KeyError):
        service.module(None)


def test_a_module_without_a_name_is_refused(sample_config: Any) -> None:
    assert sample_config.problems(sample_config.base.replace("[modules.asr", '[modules.""')) == [
        '[modules.""]: the name of a module must be a text of at least one character'
    ]


@pytest.mark.parametrize("path", ["/.well-known/asr", "/...", "/api/v1..2/", "/~asr"])
def test_dots_in_the_parts_of_a_path_are_fine(sample_config: Any, path: str) -> None:
    text = sample_config.changed('path = "/api/asr"', f'path = "{path}"')
    assert sample_config.load(text).service.modules[0].path == path


@pytest.mark.parametrize("tail", ["", "[modules]\n"])
def test_a_file_without_modules_is_refused(sample_config: Any, tail: str) -> None:
    assert len(sample_config.problems(sample_config.top + tail)) == 1


def test_an_entry_of_modules_that_is_no_table_is_refused(sample_config: Any) -> None:
    assert sample_config.problems("modules.spare = 3\n" + sample_config.base) == [
        "[modules] spare = 3: must be a table"
    ]


class TestFilesThatAreNone:
    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
            load_config(tmp_path / "absent.toml", {})

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            load_config(tmp_path, {})

    def test_a_file_that_is_no_toml(self, sample_config: Any) -> None:
        with pytest.raises(ConfigError, match=r"is no TOML: .*line 2"):
            sample_config.load("static_dir = 'x'\nlog_dir = = 3\n")

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "binary.toml"
        path.write_bytes(b"# \xff\xfe")

        with pytest.raises(ConfigError, match="is no TOML: not UTF-8 at byte 2"):
            load_config(path, {})
