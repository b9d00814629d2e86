"""What must hold between several keys of a configuration."""

from dataclasses import replace
from typing import Any

import pytest

from shared.config import GatewayConfig, LutConditioner
from shared.config_rules import access_problems


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("ratios = [4, 5, 6, 4]", "ratios = [4, 5, 6, 4]: their product times 2 must be 1920, not 960"),
        ("ratios = [4, 0]", "ratios = [4, 0]: must be a list, each item an integer from 1 to 2147483648"),
        ("context = 1", "context = 1: must be an integer from 2 to "),
        ("n_filters = 1", "n_filters = 1: must be an integer from 2 to 4096"),
        ("num_layers = 1025", "num_layers = 1025: must be an integer from 1 to 1024"),
        ("dimension = 2147483648", "dimension = 2147483648: must be an integer from 1 to 65536"),
        ("num_head = 8", 'num_head: unknown key; did you mean "num_heads"?'),
        ("stride = 8", "stride: unknown key; known are codebook_dim, codebook_size, context, "),
        ("dimension = 100", "dimension = 100: must be num_heads = 8 times an even number (rotary positions pair them)"),
    ],
)
def test_the_codec_of_another_size_must_fit(sample_config: Any, table: str, problem: str) -> None:
    (found,) = sample_config.problems(sample_config.base + f"[modules.asr.mimi]\n{table}\n")

    assert found.startswith(f"[modules.asr.mimi] {problem}")


def test_the_model_hears_the_codes_of_the_codec_and_one_more(sample_config: Any) -> None:
    assert sample_config.problems(sample_config.base + "[modules.asr.mimi]\ncodebook_size = 1024\n") == [
        "[modules.asr.model] audio_vocab_size = 2049: must be 1025, one more than Mimi's codebook_size = 1024"
    ]


def test_a_model_must_be_able_to_hear_what_it_says(sample_config: Any) -> None:
    (problem,) = sample_config.problems(
        sample_config.changed("text_out_vocab_size = 8000", "text_out_vocab_size = 8002")
    )

    assert problem.startswith(
        "[modules.asr.model] text_out_vocab_size = 8002: must be at most text_in_vocab_size = 8001"
    )


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("max_buffered_audio_s = 1", "min_buffered_audio_s = 2: must be at most max_buffered_audio_s = 1"),
        (
            "ping_after_s = 20.0",
            "ping_after_s = 20: must be below silent_client_s = 20, or no client has time to answer a ping",
        ),
    ],
)
def test_limits_that_contradict_each_other_are_refused(sample_config: Any, table: str, problem: str) -> None:
    assert sample_config.problems(f"{sample_config.base}[gateway]\n{table}\n") == [f"[gateway] {problem}"]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("asr_delay_in_tokens", "2001", "asr_delay_in_tokens = 2001: must be an integer from 0 to 2000"),
        ("log_frequency_s", "1e-6", "log_frequency_s = 1e-06: must be a number from 0.08 to "),
    ],
)
def test_what_no_worker_could_keep_is_refused(sample_config: Any, key: str, value: str, problem: str) -> None:
    lines = [line for line in sample_config.base.splitlines() if not line.startswith(f"{key} =")]
    at = lines.index("[modules.asr]") + 1
    (found,) = sample_config.problems("\n".join([*lines[:at], f"{key} = {value}", *lines[at:]]) + "\n")
    assert found.startswith(f"[modules.asr] {problem}")


def test_a_path_with_a_nul_is_no_folder(sample_config: Any) -> None:
    (found,) = sample_config.problems(sample_config.base + '[gateway]\nspool_dir = "\\u0000"\n')
    assert found.startswith("[gateway] spool_dir = ")


@pytest.mark.parametrize("key", ["min_buffered_audio_s", "max_buffered_audio_s"])
def test_less_than_a_frame_may_not_be_all_that_waits(sample_config: Any, key: str) -> None:
    assert sample_config.problems(f"{sample_config.base}[gateway]\n{key} = 0.079\n") == [
        f"[gateway] {key} = 0.079: must be a number from 0.08 to 1000000000"
    ]


def test_two_modules_may_not_share_a_path(sample_config: Any) -> None:
    text = sample_config.base + sample_config.module("french").replace("/api/french", "/api/asr/")

    assert sample_config.problems(text) == ['[modules.french] path = "/api/asr/": [modules.asr] has the same path']


def test_a_gateway_without_keys_stays_closed_unless_it_is_told_so_and_listens_to_this_machine_only() -> None:
    told = GatewayConfig(allow_no_keys=True)

    assert access_problems(["a key"], GatewayConfig(host="0.0.0.0")) == []
    assert [access_problems([], replace(told, host=host)) for host in ("127.0.0.9", "::1", "localhost")] == [[]] * 3
    for closed in (GatewayConfig(), replace(told, host="0.0.0.0"), replace(told, host="stt.example.org")):
        assert len(access_problems([], closed)) == 1


class TestConditioners:
    @pytest.mark.parametrize("keys", ["", "conditioning_delay = 0.5", "conditioning_learnt_padding = true"])
    def test_without_conditioners_both_keys_are_ignored(self, sample_config: Any, keys: str) -> None:
        assert (
            sample_config.load(sample_config.changed("temperature = 0", keys)).service.modules[0].model.conditioners
            == {}
        )

    def test_a_conditioning_delay_decides_how_far_the_words_trail(self, sample_config: Any) -> None:
        text = sample_config.changed("temperature = 0", "conditioning_delay = 2.5") + sample_config.delay_conditioner

        assert sample_config.load(text).service.modules[0].delay_frames == 32

    def test_one_of_the_two_is_required(self, sample_config: Any) -> None:
        (problem,) = sample_config.problems(sample_config.base + sample_config.delay_conditioner)

        assert problem.startswith("[modules.asr] conditioning_delay or conditioning_learnt_padding = true is required")

    def test_both_are_one_too_many(self, sample_config: Any) -> None:
        keys = "conditioning_delay = 0.5\nconditioning_learnt_padding = true"

        assert sample_config.problems(
            sample_config.changed("temperature = 0", keys) + sample_config.delay_conditioner
        ) == [
            "[modules.asr] conditioning_delay = 0.5 and conditioning_learnt_padding = true: set one of the two",
        ]

    def test_the_one_that_is_used_is_called_delay(self, sample_config: Any) -> None:
        text = sample_config.changed("temperature = 0", "conditioning_delay = 0.5")

        assert sample_config.problems(
            text + sample_config.delay_conditioner.replace("conditioners.delay", "conditioners.noise")
        ) == [
            '[modules.asr] model.conditioners: one must be called "delay", found: noise',
        ]

    def test_a_table_of_values_takes_the_learnt_padding_or_a_delay_that_it_knows(self, sample_config: Any) -> None:
        table = '[modules.asr.model.conditioners.delay]\ntype = "Lut"\nn_bins = 3\ndim = 16\n'
        table += 'possible_values = ["x", "0.50"]'

        def with_key(key: str) -> str:
            return str(sample_config.changed("temperature = 0", key) + table)

        for key in ("conditioning_learnt_padding = true", "conditioning_delay = 0.5"):
            module = sample_config.load(with_key(key)).service.modules[0]
            assert module.model.conditioners == {
                "delay": LutConditioner(n_bins=3, dim=16, possible_values=("x", "0.50"))
            }
        assert sample_config.problems(with_key("conditioning_delay = 2.5")) == [
            "[modules.asr] conditioning_delay = 2.5: the model knows only x, 0.50"
        ]

    def test_a_table_of_values_has_a_bin_for_each(self, sample_config: Any) -> None:
        table = (
            '[modules.asr.model.conditioners.delay]\ntype = "Lut"\nn_bins = 1\ndim = 16\npossible_values = ["a", "b"]'
        )

        assert sample_config.problems(
            sample_config.changed("temperature = 0", "conditioning_learnt_padding = true") + table
        ) == ["[modules.asr.model.conditioners.delay] possible_values: 2 of them, at most n_bins = 1 are allowed"]

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ('"ContinuousAttribute"', '"Other"', 'type = "Other": must be one of "ContinuousAttribute", "Lut"'),
            ("dim = 64", "dim = 65", "dim = 65: must be even, half cosines and half sines"),
            ("scale_factor = 10.0\n", "", "scale_factor is missing: a number"),
        ],
    )
    def test_a_wrong_conditioner_is_named(self, sample_config: Any, old: str, new: str, problem: str) -> None:
        text = sample_config.changed(
            "temperature = 0", "conditioning_delay = 0.5"
        ) + sample_config.delay_conditioner.replace(old, new)

        assert sample_config.problems(text)[0] == f"[modules.asr.model.conditioners.delay] {problem}"
