# Two commands: `make run` (the main job) and `make test` (the suite). Both first make `.venv` from the lock.

VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
TPU    := .tpu/.installed
GPU    := .gpu/.installed
OLDEST := .venv-oldest/.installed
ARGS   ?=

# XLA on a CPU hands its buffers back to the system after every step and asks for them again; with
# these settings the C library keeps them. The numbers are the same, training is faster.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184

# Tests compile the same again and again, as after each clearing of JAX's caches: they find it here.
COMPILED := JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.05 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=0 \
  JAX_COMPILATION_CACHE_DIR=$(CURDIR)/build/compiled

.PHONY: run test test-cpus test-oldest test-browser test-gpu-compile test-peers results env lint types unit wheel tpu gpu lock clean

run: $(STAMP)
	$(PY) -m experiments.translate $(ARGS)

test: lint types unit wheel
	@echo "All checks passed."

env: $(STAMP)

# What is committed in experiments/results: under an hour on two cores; SEEDS="0 1 2" for more. Multi30k's
# files (github.com/multi30k/dataset, data/task1/raw) belong in data/multi30k.
SEEDS    ?= 0
MULTI30K := --corpus multi30k --data-dir data/multi30k --rule.min-words 1 --rule.frequent-words None --vocab-size 4000
results: $(STAMP)
	@for seed in $(SEEDS); do \
	  $(PY) -m experiments.translate --corpus docs --name docs-seed$$seed --train.seed $$seed && \
	  $(PY) -m experiments.translate $(MULTI30K) --name multi30k-seed$$seed --train.seed $$seed || exit 1; \
	done
	$(PY) -m experiments.grammar && $(PY) -m experiments.length && $(PY) -m experiments.lm --name lm && $(PY) -m experiments.sort
	@for report in runs/*-seed* runs/grammar runs/length runs/lm runs/sort; do \
	  mkdir -p experiments/results/$$(basename $$report) && \
	  find $$report/report -type f ! -name '*.jsonl' -exec cp {} experiments/results/$$(basename $$report)/ \; ; \
	done
	$(PY) -m experiments.reports.summarise experiments/results

# The newest of the usual names that is Python 3.12 or later; made into .venv, whatever came before it.
$(STAMP): requirements/dev.txt
	@python=; for name in $(PYTHON) python3.12 python3.13 python3.14 python3 python; do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "attn_jax needs Python 3.12 or newer and found none: install it (for example 'pyenv install 3.12'), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) from requirements/dev.txt (once; about 1 GB, one to three minutes) ..."; \
	rm -rf $(VENV); \
	if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --python "$$python" $(VENV) && \
	  uv pip sync --quiet --require-hashes --python $(PY) requirements/dev.txt; \
	else \
	  $$python -m venv $(VENV) && \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt; \
	fi && touch $@

# The TPU compiler, in a folder of its own: inside .venv it would try to start a TPU at every import.
$(TPU): requirements/tpu.txt $(STAMP)
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  echo "Fetching the TPU compiler into .tpu (once; about 500 MB) ..."; \
	  rm -rf .tpu && $(PY) -m ensurepip >/dev/null 2>&1; \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target .tpu -r requirements/tpu.txt; \
	else mkdir -p .tpu; fi && touch $@

tpu: $(TPU)

# NVIDIA's compiler likewise. It is no part of `make test`: 1.8 GB for half a minute of work.
$(GPU): requirements/gpu.txt $(STAMP)
	@echo "Fetching NVIDIA's compiler into .gpu (once; about 1.8 GB) ..."; \
	rm -rf .gpu && $(PY) -m ensurepip >/dev/null 2>&1; \
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target .gpu -r requirements/gpu.txt && touch $@

gpu: $(GPU)

# Attention's gradients compiled for two H100; needs Linux on x86-64 or ARM, and no GPU.
test-gpu-compile: $(GPU)
	JAX_PLATFORMS=cpu PYTHONPATH=.gpu:. $(PY) tests/repository/compile_for_gpu.py

# The oldest versions that pyproject.toml allows, in an environment of their own: what a newer JAX has
# and the oldest has not would break at import, in a trace, in a gradient, a layer or a checkpoint.
$(OLDEST): requirements/oldest.txt $(STAMP)
	@echo "Making .venv-oldest from requirements/oldest.txt (once; about 700 MB) ..."; \
	rm -rf .venv-oldest; \
	if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --python $(PY) .venv-oldest && \
	  uv pip sync --quiet --require-hashes --python .venv-oldest/bin/python requirements/oldest.txt; \
	else \
	  $(PY) -m venv .venv-oldest && \
	  .venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/oldest.txt; \
	fi && touch $@

ON_THE_OLDEST := $(addprefix tests/,test_every_module.py test_operation.py test_score_mods.py test_modules_self_attention.py)
test-oldest: $(OLDEST)
	$(COMPILED) .venv-oldest/bin/python -m pytest -q -p no:cacheprovider $(ON_THE_OLDEST)

# The viewer's pages in a real browser: Chromium from Debian (installed where one may), or CHROMIUM=path.
test-browser: $(STAMP)
	@if ! command -v chromium >/dev/null && [ -z "$$CHROMIUM" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "Installing Debian's chromium (once; about 300 MB) ..."; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	fi
	BROWSER_TESTS=required $(PY) -m pytest -q tests/browser $(ARGS)

# The attention tests of jax.nn, flax and tokamax with ours in the place of theirs; clones are given by path:
#   make test-peers JAX=/path/to/jax FLAX=/path/to/flax TOKAMAX=/path/to/tokamax
# Tokamax needs packages of its own: PEERS_PYTHON= is a Python that has them beside ours.
PEERS_PYTHON ?= $(PY)
test-peers: $(STAMP)
	$(PEERS_PYTHON) tests/peers.py $(if $(JAX),--jax $(JAX)) $(if $(FLAX),--flax $(FLAX)) $(if $(TOKAMAX),--tokamax $(TOKAMAX))

lint: $(STAMP)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: $(STAMP)
	$(PY) -m pyrefly check --summary=none

# Tests of experiments kill processes in the middle of whatever they write: they share no compiled functions.
PYTEST := $(PY) -m pytest -n 2 --doctest-modules --jaxtyping-packages=attn_jax,experiments,beartype.beartype

# Here XLA need not make fast what runs once; the built package is tested as users compile.
QUICK := XLA_FLAGS="$$XLA_FLAGS --xla_backend_optimization_level=0"

# A file of experiments trains once what all its tests look at, so it stays in one process.
unit: $(STAMP) $(TPU)
	$(QUICK) $(COMPILED)-quickly $(PYTEST) --ignore=tests/experiments --ignore=tests/browser $(ARGS)
	$(QUICK) $(PYTEST) --dist loadfile tests/experiments

# Where tests compare bits, once more on other kinds of CPU: XLA compiles as for one that has no more than AVX2, or
# AVX-512, and natively. What is compiled for one is not run as another. One kind alone: make test-cpus CPUS=AVX2.
CPUS ?= AVX2 AVX512 native
BITS  = $(shell grep -lE 'assert_equal|array_equal|same_bits' tests/test_*.py tests/models/test_*.py)

test-cpus: $(STAMP)
	@for cpu in $(CPUS); do \
	  case $$cpu in native) flags=;; *) flags=--xla_cpu_max_isa=$$cpu;; esac; \
	  echo "As on a CPU with $$cpu:"; \
	  XLA_FLAGS="$$XLA_FLAGS $$flags" $(COMPILED)-$$cpu $(PYTEST) -q $(BITS) $(ARGS) || exit 1; \
	done

# The built package, tested from an empty directory, without the type-checking hook and compiled as users compile:
# all that compares numbers with the definition, and tests of each other part, for what a wheel can lack is a file.
IN_THE_WHEEL := $(addprefix tests/,test_attend.py test_bad_input.py test_caches.py test_conformance.py test_contracts.py \
  test_every_module.py test_explain.py test_ladder_a.py test_ladder_e.py test_masks.py test_paged_cache.py test_rotary.py test_score_mods.py \
  models/test_encoder_decoder.py models/test_gpt.py models/test_hf_checkpoints.py \
  viewer/test_payload.py)

wheel: $(STAMP)
	@rm -rf build/wheel build/site && mkdir -p build
	$(PY) -m hatchling build --target wheel --directory build/wheel >/dev/null
	$(PY) -m zipfile -e build/wheel/*.whl build/site
	@empty=$$(mktemp -d) && cp -r tests $$empty/tests && cd $$empty && \
	  $(COMPILED) PYTHONPATH=$(CURDIR)/build/site $(CURDIR)/$(PY) -m pytest -q -n 2 $(IN_THE_WHEEL) --confcutdir=. ; \
	  status=$$?; rm -rf $$empty; exit $$status

lock:
	uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-annotate --no-header --group dev pyproject.toml -o requirements/dev.txt
	uv pip compile --quiet --universal --python-version 3.12 --resolution lowest-direct --generate-hashes --no-annotate --no-header --group oldest pyproject.toml -o requirements/oldest.txt
	echo libtpu | uv pip compile --quiet --python-version 3.12 --generate-hashes --no-annotate --no-header --no-deps - -o requirements/tpu.txt
	(sed -n 's/^jax==\([0-9.]*\).*/jax-cuda13-plugin==\1\njax-cuda13-pjrt==\1/p' requirements/dev.txt; \
	  printf '%s\n' nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-nvrtc nvidia-cudnn-cu13) | \
	  uv pip compile --quiet --python-version 3.12 --generate-hashes --no-annotate --no-header --no-deps - -o requirements/gpu.txt

clean:
	rm -rf $(VENV) .venv-oldest .tpu .gpu build
