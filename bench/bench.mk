# Benchmarks; included by the Makefile. REFERENCE_PYTHON names an interpreter whose environment has the published
# packages (pip install moshi rustymimi): without it only our own numbers are printed. BENCH_FLAGS=--keep keeps results.

REFERENCE_PYTHON ?=
BENCH_FLAGS ?=
REFERENCE := $(if $(REFERENCE_PYTHON),--reference-python $(REFERENCE_PYTHON))

.PHONY: bench bench-long bench-gpu

bench: $(INSTALLED) ## run the short benchmarks, some minutes (REFERENCE_PYTHON= BENCH_FLAGS=--keep)
	@$(BIN)/python -m bench.wire $(BENCH_FLAGS)
	$(BIN)/python -m bench.link $(BENCH_FLAGS)
	$(BIN)/python -m bench.worker_loop $(BENCH_FLAGS)
	$(BIN)/python -m bench.step --rounds 4 $(REFERENCE) $(BENCH_FLAGS)
	$(BIN)/python -m bench.gateway $(BENCH_FLAGS)
	$(BIN)/python -m bench.latency $(BENCH_FLAGS)
	$(BIN)/python -m bench.capacity --sessions 8 32 --seconds 10 $(BENCH_FLAGS)

bench-long: $(INSTALLED) ## search the capacity of this machine; what is found must hold for ten minutes (BENCH_FLAGS=)
	@$(BIN)/python -m bench.step --rounds 12 $(REFERENCE) $(BENCH_FLAGS)
	$(BIN)/python -m bench.capacity --confirm 600 $(BENCH_FLAGS)

bench-gpu: $(INSTALLED) ## measure the 1B shape on a CUDA device
	@if ! $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
		echo "bench-gpu: skipped, torch sees no CUDA device here" >&2
		exit 0
	fi
	$(BIN)/python -m bench.step --device cuda --dtypes bf16 --sizes 1b --batches 64 400 1200 $(REFERENCE) $(BENCH_FLAGS)
	$(BIN)/python -m bench.step --device cuda --dtypes bf16 --sizes 1b --batches 1200 --active 1 100 400 1200 $(BENCH_FLAGS)
