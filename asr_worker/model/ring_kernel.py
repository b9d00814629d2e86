"""Attention of one or two queries over rings that lie where they lie, as a Triton kernel. Needs the package triton.

    program (row, head, split):  slot of the row ──► its cells of this split, a block at a time
    each lane of the block       running maximum, sum and weighted values of the cells it met   (online softmax)
    at the end                   lanes are merged; with several splits, a second kernel merges these

Memory is all that such attention waits for, so every key and value is read once, in the format it is kept in, and only
cells that were filled. Lanes that go their own way need no exchange between warps inside the loop. Ring order does not
matter to attention: a cell's age follows from its number. Splits give a small batch enough programs to fill a device.

Keys were rotated before they were kept. Everything is computed in float32.
"""

# Triton reads the annotations below, and its decorator has no types.
# ruff: noqa: ANN201, ANN202, PLR0917, PLR2004
# mypy: disable-error-code="untyped-decorator, no-untyped-def, possibly-undefined, no-any-return"

import triton
import triton.language as tl


@triton.jit
def _meet(
    asked: tl.tensor, key: tl.tensor, value: tl.tensor, key_scale: tl.tensor, value_scale: tl.tensor,
    is_visible: tl.tensor, largest: tl.tensor, total: tl.tensor, seen: tl.tensor,
    has_scales: tl.constexpr,
):  # fmt: skip
    """Let each lane's softmax meet one more cell."""
    scores = tl.sum(asked[None, :] * key, 1)
    if has_scales:
        scores *= key_scale
    scores = tl.where(is_visible, scores, float("-inf"))
    new_largest = tl.maximum(largest, scores)
    # A lane that has seen nothing yet: any finite number will do in place of -inf.
    anchor = tl.where(new_largest == float("-inf"), 0.0, new_largest)
    kept = tl.exp(largest - anchor)
    weight = tl.exp(scores - anchor)
    total = total * kept + weight
    if has_scales:
        weight *= value_scale
    return new_largest, total, seen * kept[:, None] + weight[:, None] * value


@triton.jit
def _close(
    largest: tl.tensor, total: tl.tensor, seen: tl.tensor, answer: tl.tensor, split: tl.tensor, dims: tl.tensor,
    out: tl.tensor, part_max: tl.tensor, part_sum: tl.tensor, part_out: tl.tensor,
    head_dim: tl.constexpr, n_splits: tl.constexpr,
):  # fmt: skip
    """Merge the lanes and write one query's answer, or this split's part of it."""
    top = tl.max(largest, 0)
    anchor = tl.where(top == float("-inf"), 0.0, top)
    share = tl.exp(largest - anchor)
    total = tl.sum(total * share, 0)
    seen = tl.sum(seen * share[:, None], 0)
    is_dim = dims < head_dim
    if n_splits == 1:
        tl.store(out + answer * head_dim + dims, seen / tl.where(total == 0.0, 1.0, total), mask=is_dim)
    else:
        part = answer * n_splits + split
        tl.store(part_max + part, top)
        tl.store(part_sum + part, total)
        tl.store(part_out + part * head_dim + dims, seen, mask=is_dim)


@triton.jit
def attend_kernel(
    queries: tl.tensor, keys: tl.tensor, values: tl.tensor, key_scales: tl.tensor, value_scales: tl.tensor,
    slots: tl.tensor, newest: tl.tensor, counts: tl.tensor,
    out: tl.tensor, part_max: tl.tensor, part_sum: tl.tensor, part_out: tl.tensor,
    row_stride: tl.tensor, query_stride: tl.tensor, head_stride: tl.tensor,
    softmax_scale: tl.tensor, n_heads: tl.tensor, context: tl.tensor,
    n_queries: tl.constexpr, head_dim: tl.constexpr, width: tl.constexpr, block: tl.constexpr,
    n_splits: tl.constexpr, has_scales: tl.constexpr,
):  # fmt: skip
    """Compute one head of one row over one split of its cells."""
    row = tl.program_id(0) // n_heads
    head = tl.program_id(0) % n_heads
    split = tl.program_id(1)
    first_cell = (tl.load(slots + row) * n_heads + head) * context
    newest_cell = tl.load(newest + row)
    count = tl.load(counts + row)
    cells_per_split = tl.cdiv(tl.cdiv(count, n_splits), block) * block
    begin = split * cells_per_split
    end = tl.minimum(count, begin + cells_per_split)

    dims = tl.arange(0, width)
    lanes = tl.arange(0, block)
    is_dim = dims < head_dim
    at_query = queries + row * row_stride + head * head_stride + dims
    asked = tl.load(at_query, mask=is_dim, other=0.0).to(tl.float32) * softmax_scale
    largest = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    seen = tl.zeros([block, width], tl.float32)
    if n_queries == 2:  # told apart by hand: a third axis costs exchanges between warps
        asked_2 = tl.load(at_query + query_stride, mask=is_dim, other=0.0).to(tl.float32) * softmax_scale
        largest_2 = tl.full([block], float("-inf"), tl.float32)
        total_2 = tl.zeros([block], tl.float32)
        seen_2 = tl.zeros([block, width], tl.float32)
    for start in range(begin, end, block):
        cells = start + lanes
        is_filled = cells < end
        at = (first_cell + cells)[:, None] * head_dim + dims[None, :]
        wanted = is_filled[:, None] & is_dim[None, :]
        key = tl.load(keys + at, mask=wanted, other=0.0).to(tl.float32)
        value = tl.load(values + at, mask=wanted, other=0.0).to(tl.float32)
        key_scale = is_filled
        value_scale = is_filled
        if has_scales:
            key_scale = tl.load(key_scales + first_cell + cells, mask=is_filled, other=0.0).to(tl.float32)
            value_scale = tl.load(value_scales + first_cell + cells, mask=is_filled, other=0.0).to(tl.float32)
        # The first of two queries does not see the second one's position, which lies in the newest cell.
        is_visible = is_filled
        if n_queries == 2:
            is_visible = is_filled & (cells != newest_cell)
            largest_2, total_2, seen_2 = _meet(
                asked_2, key, value, key_scale, value_scale, is_filled, largest_2, total_2, seen_2, has_scales
            )
        largest, total, seen = _meet(
            asked, key, value, key_scale, value_scale, is_visible, largest, total, seen, has_scales
        )

    answer = row * n_queries * n_heads + head
    _close(largest, total, seen, answer, split, dims, out, part_max, part_sum, part_out, head_dim, n_splits)
    if n_queries == 2:
        _close(
            largest_2, total_2, seen_2, answer + n_heads, split, dims, out, part_max, part_sum, part_out,
            head_dim, n_splits,
        )  # fmt: skip


@triton.jit
def merge_kernel(
    part_max: tl.tensor, part_sum: tl.tensor, part_out: tl.tensor, out: tl.tensor,
    head_dim: tl.constexpr, width: tl.constexpr, n_splits: tl.constexpr,
):  # fmt: skip
    """Merge the splits of one query and head of one row."""
    answer = tl.program_id(0)
    parts = answer * n_splits + tl.arange(0, n_splits)
    dims = tl.arange(0, width)
    is_dim = dims < head_dim
    largest = tl.load(part_max + parts)
    top = tl.max(largest, 0)
    share = tl.exp(largest - tl.where(top == float("-inf"), 0.0, top))
    total = tl.sum(tl.load(part_sum + parts) * share, 0)
    seen = tl.load(part_out + parts[:, None] * head_dim + dims[None, :], mask=is_dim[None, :], other=0.0)
    seen = tl.sum(seen * share[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out + answer * head_dim + dims, seen, mask=is_dim)
