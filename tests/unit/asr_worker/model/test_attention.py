import math

import pytest
import torch

from asr_worker.model.attention import Attention, Sequence, frequencies_of, rotate, rotation_of
from asr_worker.model.ring import Ring
from asr_worker.model.rows import rows_at

CPU = torch.device("cpu")
DIM, N_HEADS, CONTEXT, PERIOD = 16, 2, 7, 10_000.0
HEAD_DIM = DIM // N_HEADS
EIGHT = frequencies_of(head_dim=8, max_period=PERIOD, device=torch.device("cpu"))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def attention(dtype: torch.dtype = torch.float32) -> Attention:
    torch.manual_seed(0)
    layer = Attention(DIM, dtype).requires_grad_(requires_grad=False)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape) / 2)
    return layer


def ring(n_rows: int, context: int = CONTEXT, dtype: torch.dtype = torch.float32) -> Ring:
    return Ring(
        n_layers=1,
        n_rows=n_rows,
        context=context,
        n_heads=N_HEADS,
        head_dim=HEAD_DIM,
        max_period=PERIOD,
        device=torch.device("cpu"),
        dtype=dtype,
    )


def offline(layer: Attention, x: torch.Tensor, *, per_step: int, context: int = CONTEXT) -> torch.Tensor:
    memory = Sequence(
        n_positions=x.shape[1], context=context, per_step=per_step, head_dim=HEAD_DIM, max_period=PERIOD, like=x
    )
    return layer(x, memory, 0)


def by_the_book(layer: Attention, x: torch.Tensor, seen_by: list[list[int]]) -> torch.Tensor:
    """One row's attention as the equations say it, position by position and head by head."""
    q, k, v = (x @ layer.in_proj_weight.T).view(len(x), 3, N_HEADS, HEAD_DIM).unbind(1)

    def turned(vector: torch.Tensor, position: int) -> torch.Tensor:
        out = vector.clone()
        for i in range(HEAD_DIM // 2):
            angle = position * PERIOD ** (-2 * i / HEAD_DIM)
            even, odd = vector[2 * i].item(), vector[2 * i + 1].item()
            out[2 * i] = even * math.cos(angle) - odd * math.sin(angle)
            out[2 * i + 1] = even * math.sin(angle) + odd * math.cos(angle)
        return out

    rows = []
    for m, seen in enumerate(seen_by):
        heads = []
        for h in range(N_HEADS):
            scores = torch.stack([turned(q[m, h], m) @ turned(k[j, h], j) for j in seen]) / math.sqrt(HEAD_DIM)
            heads.append(torch.softmax(scores, 0) @ v[seen, h])
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ layer.out_proj_weight.T


def test_one_position_a_step_sees_the_last_c_positions() -> None:
    layer, x = attention(), torch.randn(1, 20, DIM, generator=torch.Generator().manual_seed(1))
    windows = [list(range(max(0, m - CONTEXT + 1), m + 1)) for m in range(20)]
    close(offline(layer, x, per_step=1)[0], by_the_book(layer, x[0], windows))


def test_two_positions_a_step_leave_the_first_of_them_one_less() -> None:
    """In a full ring of 8 the first of two queries finds its oldest position overwritten by the second."""
    layer, x = attention(), torch.randn(1, 20, DIM, generator=torch.Generator().manual_seed(1))
    windows = [list(range(max(0, m - m % 2 + 2 - 8), m + 1)) for m in range(20)]
    assert (len(windows[16]), len(windows[17])) == (7, 8)
    close(offline(layer, x, per_step=2, context=8)[0], by_the_book(layer, x[0], windows))


@pytest.mark.parametrize(("per_step", "context"), [(1, 7), (2, 8), (2, 7), (3, 7), (1, 1)])
def test_the_ring_agrees_with_the_sequence_whatever_rows_step(per_step: int, context: int) -> None:
    layer = attention()
    random = torch.Generator().manual_seed(2)
    n_rows, n_steps = 3, 30
    x = torch.randn(n_rows, n_steps * per_step, DIM, generator=random)
    expected = offline(layer, x, per_step=per_step, context=context)
    state = ring(n_rows, context)
    done = [0] * n_rows
    while min(done) < n_steps:
        active = (torch.rand(n_rows, generator=random) < 0.7) & (torch.tensor(done) < n_steps)
        new = torch.randn(n_rows, per_step, DIM, generator=random)
        for row in range(n_rows):
            if active[row]:
                new[row] = x[row, done[row] * per_step : (done[row] + 1) * per_step]
        out = layer(new, state.begin(per_step), 0)
        state.advance(active, per_step)
        assert out.isfinite().all()
        for row in range(n_rows):
            if active[row]:
                at = done[row] * per_step
                close(out[row], expected[row, at : at + per_step])
                done[row] += 1


def test_a_reset_row_starts_again_and_leaves_the_others_alone() -> None:
    layer = attention()
    x = torch.randn(2, 12, DIM, generator=torch.Generator().manual_seed(3))
    expected = offline(layer, x, per_step=1)
    again = offline(layer, x[:, 9:], per_step=1)
    state = ring(2)
    everyone = torch.ones(2, dtype=torch.bool)
    for k in range(12):
        if k == 9:
            state.reset(torch.tensor([True, False]))
        out = layer(x[:, k : k + 1], state.begin(1), 0)
        state.advance(everyone, 1)
        close(out[0, 0], again[0, k - 9] if k >= 9 else expected[0, k])
        close(out[1, 0], expected[1, k])


def test_rotations_stay_exact_after_weeks_of_audio() -> None:
    """The angle between neighbours is the same at position 10 and at position 10 million."""
    near = rotation_of(torch.tensor([10, 11]), EIGHT)
    far = rotation_of(torch.tensor([10_000_000, 10_000_001]), EIGHT)
    torch.testing.assert_close(far[1] * far[0].conj(), near[1] * near[0].conj(), rtol=0, atol=1e-6)


def test_rotation_keeps_length_and_dtype() -> None:
    x = torch.randn(2, 3, 1, 8, dtype=torch.bfloat16)
    turned = rotate(x, rotation_of(torch.arange(3)[None], EIGHT)[:, :, None])
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned.float().norm(dim=-1), x.float().norm(dim=-1), rtol=0.01, atol=0.01)
    torch.testing.assert_close(turned[:, 0], x[:, 0])


def test_float16_leaves_no_infinity_in_the_ring() -> None:
    layer, state = attention(torch.float16), ring(1, dtype=torch.float16)
    x = torch.full((1, 1, DIM), 60_000.0, dtype=torch.float16)
    assert not torch.nn.functional.linear(x, layer.in_proj_weight).isfinite().all()
    layer(x, state.begin(1), 0)
    assert state.cache.keys.isfinite().all()
    assert state.cache.values.isfinite().all()


@pytest.mark.parametrize("slots", [range(9), range(1, 9), [0, 2, 3, 4, 5, 6, 7, 8]])
@torch.inference_mode()
def test_long_rings_are_read_where_they_lie(slots: list[int]) -> None:
    """Values are summed up in place, unless a run of slots is too short for that: what is seen must be the same."""
    n_heads, head_dim, context = 4, 64, 600
    memory = Ring(
        n_layers=2, n_rows=9, context=context, n_heads=n_heads, head_dim=head_dim, max_period=PERIOD,
        device=CPU, dtype=torch.float32,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(7)
    for numbers in (memory.cache.keys, memory.cache.values):
        numbers.copy_(torch.randn(numbers.shape, generator=generator))
    memory.position.copy_(torch.tensor([590, 3, 700, 1299, 42, 599, 0, 450, 598]))
    rows = rows_at(slots)
    projected = torch.randn(rows.n, 2, 3 * n_heads * head_dim, generator=generator)
    found = memory.begin(2, rows).attend(1, projected)
    turns = rotation_of(
        rows.take(memory.position)[:, None] + torch.arange(2),
        frequencies_of(head_dim=head_dim, max_period=PERIOD, device=CPU),
    )[:, :, None]
    queries = rotate(projected.view(rows.n, 2, 3, n_heads, head_dim)[:, :, 0], turns)
    for row, slot in enumerate(slots):
        newest = int(memory.position[slot]) + 1
        for m in range(2):
            held = {position % context: position for position in range(max(0, newest + 1 - context), newest + 1)}
            cells = [cell for cell, position in held.items() if position < newest + m]
            keys, values = (kept[1, slot, :, cells] for kept in (memory.cache.keys, memory.cache.values))
            weights = torch.softmax(torch.einsum("hd,hcd->hc", queries[row, m], keys) / head_dim**0.5, dim=-1)
            close(found[row, m].view(n_heads, head_dim), torch.einsum("hc,hcd->hd", weights, values))
