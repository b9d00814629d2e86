"""What is done on a CUDA device before anybody is served: steps are captured in graphs, attention is timed.

Written by torch's documentation and sources. What graphs ask for:

- All graphs share one memory pool: they run one after the other, and nothing that a step allocates outlives it, so
  the order of replays is free. The largest comes first, the others fit into what it took.
- Libraries choose kernels and allocate in their first calls, and kernels are loaded then, which a capture must not see:
  each size is stepped before, on the stream that it is captured on, whose library workspaces the graphs then use.
- Random numbers: a generator must be registered with each graph before its capture; greedy models have none.
"""

from collections.abc import Callable
from statistics import median
from typing import Final

import torch

from asr_worker.model.ring import RingAttention

N_REHEARSALS: Final = 2
N_TIMED: Final = 9
PROGRAMS_PER_CORE: Final = 4
"""As many of the kernel's programs as run on a multiprocessor at once, by its registers."""


def capture(
    run: Callable[[int], None],
    rehearse: Callable[[int], None],
    sizes: tuple[int, ...],
    generator: torch.Generator | None,
) -> dict[int, torch.cuda.CUDAGraph]:
    """Return a graph of ``run(size)`` for each size. For the current device, which must have nothing else to do.

    Args:
        run: queues a step of so many rows, from buffers and into buffers that stay.
        rehearse: the same with everything that comes before it.
        sizes: in rising order.
        generator: of the random numbers that a step draws.
    """
    graphs: dict[int, torch.cuda.CUDAGraph] = {}
    pool = torch.cuda.graph_pool_handle()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    for size in reversed(sizes):
        with torch.cuda.stream(stream):
            for _ in range(N_REHEARSALS):
                rehearse(size)
        graph = torch.cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            run(size)
        graphs[size] = graph
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    return graphs


def time_ms(run: Callable[[], object]) -> float:
    """Return the median time of ``run`` on the current device."""
    times_ms: list[float] = []
    for _ in range(N_TIMED):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        end.synchronize()
        times_ms.append(start.elapsed_time(end))
    # The first runs compile kernels and take memory: the median is of the others.
    return median(times_ms[N_REHEARSALS:])


def make_ring_kernel() -> RingAttention:
    """Return our attention kernel for the current device.

    Raises:
        ImportError: there is no triton.
    """
    # Builds of torch for CUDA bring triton with them; nothing else needs it.
    from asr_worker.model.ring_attention import RingKernel  # noqa: PLC0415

    n_cores = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    return RingKernel(n_programs=PROGRAMS_PER_CORE * n_cores)
