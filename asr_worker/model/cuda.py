"""Capturing steps in CUDA graphs. Written by torch's documentation and sources; what they ask for is said here.

- All graphs share one memory pool: they run one after the other, and nothing that a step allocates outlives it, so
  the order of replays is free. The largest comes first, the others fit into what it took.
- Libraries choose kernels and allocate in their first calls, and kernels are loaded then, which a capture must not see:
  each size is stepped before, on the stream that it is captured on, whose library workspaces the graphs then use.
- Random numbers: a generator must be registered with each graph before its capture; greedy models have none.
"""

from collections.abc import Callable
from typing import Final

import torch

N_REHEARSALS: Final = 2


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
