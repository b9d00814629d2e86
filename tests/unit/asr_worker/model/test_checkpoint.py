import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr_worker.model.checkpoint import Need, Wanted, copy_into, fill, problems_of, read_header, require_finite
from asr_worker.model.mimi import MimiEncoder
from asr_worker.model.needs import mimi_needs
from asr_worker.model.seanet import CausalConv
from shared.errors import CheckpointError


def need(name: str, *shape: int, aliases: tuple[str, ...] = ()) -> tuple[Need, torch.Tensor]:
    target = torch.zeros(shape)
    return Need(wanted=(Wanted(name=name, shape=shape, aliases=aliases),), put=copy_into(target)), target


def written(path: Path, **tensors: torch.Tensor) -> Any:
    save_file(tensors, path)
    return read_header("lm_model_file", path)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header("lm_model_file", path)
    prefix = f"lm_model_file {path}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def test_a_header_tells_names_shapes_dtypes_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = written(path, a=torch.zeros(2, 3), b=torch.zeros(4, dtype=torch.bfloat16))
    assert {name: (found.shape, found.dtype) for name, found in header.tensors.items()} == {
        "a": ((2, 3), "F32"),
        "b": ((4,), "BF16"),
    }
    assert (header.file_bytes, header.data_bytes) == (path.stat().st_size, 2 * 3 * 4 + 4 * 2)


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a", metadata={"format": "pt"})
    assert list(read_header("lm_model_file", tmp_path / "a").tensors) == ["a"]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.safetensors") == "there is no such file"
    assert refusal(tmp_path) == "is not a file"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"abc", "is no safetensors file"),
        (b"\xff" * 100, "is no safetensors file"),
        (b"PK\x03\x04" + b"\0" * 100, "is a PyTorch pickle (torch.save); only safetensors files are read"),
        (b"\x80\x02}q\0." + b"x" * 100, "is a Python pickle; only safetensors files are read"),
        (b"GGUF" + b"\1" * 100, "is a GGUF file; only safetensors files are read"),
        (b"<!DOCTYPE html><html></html>", "is a web page; only safetensors files are read"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "is a Git LFS pointer, not the file that it stands for; only safetensors files are read",
        ),
        (
            (500).to_bytes(8, "little") + b'{"a":',
            "is cut short: its header alone is longer than its 13 bytes",
        ),
        ((4).to_bytes(8, "little") + b"nope", "is no safetensors file: its header cannot be understood"),
        ((2).to_bytes(8, "little") + b"[]", "is no safetensors file: its header cannot be understood"),
        (
            (11).to_bytes(8, "little") + b'{"a":"bcd"}',
            "is no safetensors file: its header cannot be understood",
        ),
    ],
)
def test_a_file_that_is_no_safetensors_file_is_refused_with_what_it_is(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(content)
    assert refusal(path) == reason


def test_torch_save_is_refused_unread(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    assert refusal(tmp_path / "model.pt") == "is a PyTorch pickle (torch.save); only safetensors files are read"


@pytest.mark.parametrize(("change", "how"), [(-1, "cut short"), (3, "too long")])
def test_a_file_of_the_wrong_length_is_refused(tmp_path: Path, change: int, how: str) -> None:
    path = tmp_path / "a.safetensors"
    size = written(path, a=torch.zeros(100)).file_bytes
    path.write_bytes((path.read_bytes() + b"xyz")[: size + change])
    assert refusal(path) == f"is {how}: it has {size + change} bytes, its header describes {size}"


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    layers = {f"layers.{i}.w": torch.zeros(2, 2) for i in range(12)}
    header = written(
        path, wide=torch.zeros(3, 4), whole=torch.zeros(2, dtype=torch.int64), unneeded=layers["layers.0.w"]
    )
    needs = [need("wide", 3, 5)[0], need("whole", 2)[0], need("absent", 7)[0]]
    needs += [need(name, 2, 2)[0] for name in layers]
    assert problems_of(header, needs) == [
        f"lm_model_file {path}: {problem}"
        for problem in (
            "tensor 'absent': missing, expected shape [7]",
            "tensor 'layers.*.w' (12 tensors): missing, expected shape [2, 2]",
            "tensor 'whole': found dtype I64, expected one of F32, BF16, F16",
            "tensor 'wide': found shape [3, 4], expected [3, 5]",
        )
    ]


def test_shape_and_dtype_wrong_together_are_one_line(tmp_path: Path) -> None:
    header = written(tmp_path / "a", w=torch.zeros(2, dtype=torch.uint8))
    (problem,) = problems_of(header, [need("w", 3)[0]])
    assert problem.endswith("'w': found shape [2], expected [3]; found dtype U8, expected one of F32, BF16, F16")


def test_aliases_are_found_and_their_values_arrive(tmp_path: Path) -> None:
    header = written(tmp_path / "a", old=torch.arange(3.0), first=torch.ones(1, dtype=torch.bfloat16))
    wanted, target = need("new", 3, aliases=("older", "old"))
    other, one = need("first", 1)
    assert problems_of(header, [wanted, other]) == []
    fill(header, [wanted, other])
    assert target.tolist() == [0, 1, 2]
    assert one.tolist() == [1]


def test_a_weight_may_come_as_gain_and_direction(small: Any, tmp_path: Path) -> None:
    """Older files keep the convolutions weight-normalised."""

    def loaded(path: Path) -> MimiEncoder:
        mimi = MimiEncoder(small.module.mimi, small.module.model.audio_codebooks)
        header = read_header("audio_tokenizer_file", path)
        assert problems_of(header, mimi_needs(mimi)) == []
        fill(header, mimi_needs(mimi))
        return mimi

    tensors = load_file(small.files().mimi)
    old = dict(tensors)
    for name in [name for name in tensors if name.endswith("conv.conv.weight")]:
        weight = old.pop(name)
        norm = weight.norm(dim=(1, 2), keepdim=True)
        old[f"{name}_g"], old[f"{name}_v"] = norm, weight * 3
    for name in [name for name in tensors if "_codebook" in name]:
        renamed = name.replace("embedding_sum", "embed_avg").replace("cluster_usage", "cluster_size")
        old[renamed] = old.pop(name)
    for name in [name for name in tensors if "in_proj_weight" in name]:
        old[name.replace("in_proj_weight", "in_projs.0.weight")] = old.pop(name)
    save_file(old, tmp_path / "old")
    found, expected = loaded(tmp_path / "old"), loaded(small.files().mimi)
    for name, parameter in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], parameter)


def test_a_gain_without_its_direction_is_a_missing_tensor(tmp_path: Path) -> None:
    header = written(tmp_path / "a", g=torch.zeros(1))
    other = Need(wanted=(Wanted(name="g", shape=(1,)), Wanted(name="v", shape=(2,))), put=lambda _g, _v: None)
    (problem,) = problems_of(header, [Need(wanted=(Wanted(name="w", shape=(2,)),), put=print, instead=other)])
    assert problem.endswith("tensor 'v': missing, expected shape [2]")


def test_a_file_whose_offsets_lie_is_refused_when_it_is_read(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}
    raw = json.dumps({"w": entry}).encode()
    path = tmp_path / "liar"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"\0" * 8)
    header = read_header("lm_model_file", path)
    with pytest.raises(CheckpointError, match=f"^lm_model_file {path}: cannot be read: "):
        fill(header, [need("w", 4)[0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers_are_refused(wrong: float, dtype: torch.dtype, tmp_path: Path) -> None:
    fine, damaged = torch.ones(2, 3, dtype=dtype), torch.ones(500, dtype=dtype)
    damaged[321] = wrong
    header = written(tmp_path / "a.safetensors", a=fine, b=damaged)
    (need_a, _), (need_b, _) = need("a", 2, 3), need("b", 500)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: tensor 'b': holds infinity or NaN; "):
        fill(header, [need_a, need_b])


def test_a_file_of_nothing_but_zeros_is_refused(tmp_path: Path) -> None:
    header = written(tmp_path / "a.safetensors", a=torch.zeros(2, 3), b=torch.zeros(5))
    with pytest.raises(CheckpointError, match=r"^lm_model_file .*a\.safetensors: holds nothing but zeros; "):
        fill(header, [need("a", 2, 3)[0], need("b", 5)[0]])
    header = written(tmp_path / "b.safetensors", a=torch.zeros(2, 3), b=torch.ones(5))
    fill(header, [need("a", 2, 3)[0], need("b", 5)[0]])


def test_a_direction_of_nothing_but_zeros_is_refused(tmp_path: Path) -> None:
    conv = CausalConv(2, 3, 5)
    conv.put_normed_weight(torch.ones(3, 1, 1), torch.cat((torch.zeros(1, 2, 5), torch.ones(2, 2, 5))))
    torch.nn.init.zeros_(conv.bias)
    with pytest.raises(
        CheckpointError, match=r"a\.safetensors: 'weight' holds infinity or NaN once it is read as float32"
    ):
        require_finite(written(tmp_path / "a.safetensors", a=torch.ones(1)), conv)


@pytest.mark.parametrize("text", ["[" * 5000, '{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}'])
def test_a_header_that_no_reader_can_read_is_no_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode())
    assert refusal(path) == "is no safetensors file: its header cannot be understood"
