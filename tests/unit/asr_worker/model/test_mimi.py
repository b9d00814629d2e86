from typing import Any

import pytest
import torch

from asr_worker.model import products, seanet
from asr_worker.model.checkpoint import fill, read_header
from asr_worker.model.mimi import MimiEncoder
from asr_worker.model.needs import mimi_needs
from asr_worker.model.seeded import seeded_audio
from asr_worker.model.seeded_files import shapes_of
from shared.config import MimiConfig


def test_whole_streams_and_single_frames_give_the_same_codes(small: Any) -> None:
    module = small.module
    mimi = MimiEncoder(module.mimi, module.model.audio_codebooks).requires_grad_(requires_grad=False)
    fill(read_header("mimi", small.files().mimi), mimi_needs(mimi))
    n_frames = 25  # more than three times the context of 16 latents
    pcm = torch.from_numpy(seeded_audio("a", 3 * n_frames, 1)).view(3, -1)
    state, everyone = mimi.new_state(3), torch.ones(3, dtype=torch.bool)
    stepped = [mimi.step(frame, state, everyone) for frame in pcm.view(3, n_frames, 1920).unbind(1)]
    assert torch.equal(mimi(pcm), torch.stack(stepped, dim=1))


def test_weights_are_packed_for_as_many_rows_as_a_step_of_all_slots_has(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[int, ...], int]] = []

    def packing_pays(weight: torch.Tensor, n_rows: int) -> bool:
        asked.append((tuple(weight.shape), n_rows))
        return False

    monkeypatch.setattr(products, "packing_pays", packing_pays)
    monkeypatch.setattr(seanet, "conv_pays", lambda **_: False)
    config, n_codebooks = small.module.mimi, small.module.model.audio_codebooks
    MimiEncoder(config, n_codebooks).requires_grad_(requires_grad=False).pack(3)

    n_convolutions, n_layers = len(asked) - 4 * config.num_layers - 2 - n_codebooks, config.num_layers
    convolutions, layers = asked[:n_convolutions], asked[n_convolutions : n_convolutions + 4 * n_layers]
    assert [n for _, n in convolutions][:2] == [3 * 1920, 3 * 1920], "the first stage halves nothing yet"
    assert convolutions[-1] == ((config.dimension, 3 * convolutions[-2][0][0]), 3 * 2), "the encoder's last"
    assert [n for _, n in layers] == [3 * 2] * (4 * n_layers), "two latents a slot"
    assert asked[n_convolutions + 4 * n_layers][1] == 3, "the downsample joins them"
    assert [n for _, n in asked[-1 - n_codebooks :]] == [3] * (1 + n_codebooks), "the quantiser's"


def test_the_published_size_needs_the_tensors_that_the_specification_counts() -> None:
    with torch.device("meta"):
        shapes = shapes_of(mimi_needs(MimiEncoder(MimiConfig(), 32)))
    assert len(shapes) == 175
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        part = "codebooks" if "_codebook" in name else name.split(".")[0]
        counts[part] = counts.get(part, 0) + torch.Size(shape).numel()
    assert counts == {
        "encoder": 12_628_256,
        "encoder_transformer": 25_190_400,
        "downsample": 1_048_576,
        "quantizer": 262_144,
        "codebooks": 16_842_752,
    }
