"""Run by ``test_ring_kernel.py`` in processes of their own: the kernel interpreted beside torch, and compiled."""

import sys
from collections.abc import Callable
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from asr_worker.model.contest import decide
from asr_worker.model.kv_cache import KV_FORMATS
from asr_worker.model.ring import Ring
from asr_worker.model.ring_attention import RingKernel
from asr_worker.model.ring_kernel import attend_kernel, merge_kernel

N_SLOTS = 3


def ring(dtype: torch.dtype, form: str | None, *, context: int, n_heads: int, head_dim: int) -> Ring:
    return Ring(
        n_layers=1,
        n_rows=N_SLOTS + 1,
        context=context,
        n_heads=n_heads,
        head_dim=head_dim,
        max_period=100.0,
        device=torch.device("cpu"),
        dtype=dtype,
        form=None if form is None else KV_FORMATS[form],
    )


def clock() -> Callable[[Callable[[], object]], float]:
    """Return a clock by which whoever comes second is faster."""
    times_ms = [2.0, 1.0]
    return lambda _run: times_ms.pop(0)


def interpret() -> None:
    """Let the contest compare: one and two queries, one and several splits, heads of any width, every format."""
    cases = [
        (torch.float32, None, 1, 40, 2, 16, 1),
        (torch.float32, None, 2, 26, 3, 8, 1),
        (torch.float32, None, 2, 600, 1, 24, 1000),
        (torch.float16, None, 1, 33, 1, 32, 1),
        (torch.bfloat16, None, 1, 600, 2, 128, 1000),
        (torch.float32, "bf16", 1, 12, 2, 16, 1),
        (torch.bfloat16, "int8", 1, 150, 1, 128, 1000),
        (torch.float32, "fp8", 2, 26, 2, 16, 1),
    ]
    for dtype, form, n_new, context, n_heads, head_dim, n_programs in cases:
        torch.manual_seed(1)
        verdict = decide(
            ring(dtype, form, context=context, n_heads=n_heads, head_dim=head_dim),
            sizes=(1, 2, N_SLOTS),
            n_new=n_new,
            make_kernel=lambda n_programs=n_programs: RingKernel(n_programs=n_programs),
            time_ms=clock(),
        )
        assert verdict.is_kernel, (dtype, form, n_new, context, head_dim, verdict.trouble)


def compile_all() -> None:
    """Compile for GPUs that are not here. The interpreter takes Python that the compiler does not."""
    types = dict.fromkeys(("part_max", "part_sum", "part_out"), "*fp32") | {"out": "*bf16"}
    compile_one(merge_kernel, 90, types, {"head_dim": 128, "width": 128, "n_splits": 16})
    for capability, kept, n_queries, n_splits in (
        (80, "bf16", 1, 4),
        (80, "fp32", 2, 1),
        (80, "i8", 1, 1),
        (90, "fp8e4nv", 1, 1),
    ):
        has_scales = kept in {"i8", "fp8e4nv"}
        said = "fp32" if kept == "fp32" else "bf16"
        constants = {
            "n_queries": n_queries, "head_dim": 128, "width": 128, "block": 32,
            "n_splits": n_splits, "has_scales": has_scales,
        }  # fmt: skip
        if not has_scales:
            constants |= {"key_scales": None, "value_scales": None}
        types = {
            "queries": f"*{said}", "out": f"*{said}", "keys": f"*{kept}", "values": f"*{kept}",
            "key_scales": "*fp16", "value_scales": "*fp16", "slots": "*i64", "newest": "*i32", "counts": "*i32",
            "part_max": "*fp32", "part_sum": "*fp32", "part_out": "*fp32", "softmax_scale": "fp32",
        }  # fmt: skip
        compile_one(attend_kernel, capability, types, constants)


def compile_one(kernel: Any, capability: int, types: dict[str, str], constants: dict[str, Any]) -> None:
    """Compile one kernel; arguments that have no type here are integers."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()})
    assert "ptx" in triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm


if __name__ == "__main__":
    {"interpret": interpret, "compile": compile_all}[sys.argv[1]]()
