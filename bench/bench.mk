# Benchmarks; included by the Makefile. REFERENCE_PYTHON names an interpreter whose environment has the published
# packages (pip install moshi rustymimi): without it only our own numbers are printed. BENCH_FLAGS=--keep keeps results.

REFERENCE_PYTHON ?=
BENCH_FLAGS ?=
REFERENCE := $(if $(REFERENCE_PYTHON),--reference-python $(REFERENCE_PYTHON))

GPU_STEP = $(BIN)/python -m bench.step --device cuda --dtypes bf16 --sizes 1b --rounds 20 --steps 10

.PHONY: bench bench-long bench-formats bench-gpu

bench: $(READY) ## run the short benchmarks, some minutes (REFERENCE_PYTHON= COMPILED= BENCH_FLAGS=--keep)
	@$(BIN)/python -m bench.wire $(BENCH_FLAGS)
	$(BIN)/python -m bench.link $(BENCH_FLAGS)
	$(BIN)/python -m bench.worker_loop $(BENCH_FLAGS)
	$(BIN)/python -m bench.step --rounds 4 $(REFERENCE) $(BENCH_FLAGS)
	$(WITH_FLAVOUR) $(BIN)/python -m bench.gateway $(BENCH_FLAGS)
	$(BIN)/python -m bench.latency $(BENCH_FLAGS)
	$(BIN)/python -m bench.flush --full 16 $(BENCH_FLAGS)
	$(BIN)/python -m bench.moves $(BENCH_FLAGS)
	$(BIN)/python -m bench.scaling $(BENCH_FLAGS)
	$(BIN)/python -m bench.capacity --sessions 8 32 --seconds 10 $(BENCH_FLAGS)

bench-formats: $(INSTALLED) ## count the tokens that caches and weights in fewer bits change, minutes (BENCH_FLAGS=)
	@$(BIN)/python -m bench.formats $(BENCH_FLAGS)

bench-long: $(INSTALLED) ## search the capacity of this machine; what is found must hold for ten minutes (BENCH_FLAGS=)
	@$(BIN)/python -m bench.step --rounds 12 $(REFERENCE) $(BENCH_FLAGS)
	$(BIN)/python -m bench.capacity --confirm 600 $(BENCH_FLAGS)

bench-gpu: $(INSTALLED) ## measure the 1B shape on a CUDA device of 140 GB
	@if ! $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
		echo "bench-gpu: skipped, torch sees no CUDA device here" >&2
		exit 0
	fi
	$(GPU_STEP) --batches 64 400 $(REFERENCE) --label 1b $(BENCH_FLAGS)
	$(GPU_STEP) --batches 64 400 --attention torch --label 1b-torch $(BENCH_FLAGS)
	$(GPU_STEP) --batches 1200 --active 1 3 100 400 1200 --label 1b-active $(BENCH_FLAGS)
	$(GPU_STEP) --batches 400 --fills 0.02 0.1 0.5 --label 1b-fill $(BENCH_FLAGS)
	$(GPU_STEP) --batches 64 400 1200 2200 --kv-caches int8 fp8 --label 1b-8bit $(BENCH_FLAGS)
