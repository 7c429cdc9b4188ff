# Two commands: `make run` (the main job) and `make test` (the suite). Both first make `.venv` from the lock.

VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
TPU    := .tpu/.installed
GPU    := .gpu/.installed
OLDEST := .venv-oldest/.installed
ARGS   ?=

# On a CPU, XLA frees its buffers after every training step and allocates them again. With these settings
# the C library keeps the memory, which makes training faster and changes no number.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184

# Tests compile the same functions many times, for example after they clear JAX's caches. JAX keeps compiled
# functions in this folder and uses them again.
COMPILED := JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.05 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=0 \
  JAX_COMPILATION_CACHE_DIR=$(CURDIR)/build/compiled

.PHONY: run test docs test-cpus test-oldest test-newest test-browser package test-fused-tpu test-gpu-compile test-peers results env lint types unit wheel tpu tpu-example gpu lock clean

run: $(STAMP)
	$(PY) -m experiments.translate $(ARGS)

test: lint types unit wheel
	@echo "All checks passed."

env: $(STAMP)

# Makes the files in experiments/results: under an hour on two cores; SEEDS="0 1 2" runs more seeds. Put Multi30k's
# files (github.com/multi30k/dataset, data/task1/raw) into data/multi30k first.
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

# Makes .venv again with the first program of this list that is Python 3.12 or later.
$(STAMP): requirements/dev.txt
	@python=; for name in $(PYTHON) python3.12 python3.13 python3.14 python3 python; do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "attn_jax needs Python 3.12 or newer, and none was found: install it (for example 'pyenv install 3.12'), or give its path: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; \
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

# With these settings the TPU compiler looks for no TPU.
FOR_A_TPU := PYTHONPATH=.tpu:. JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_ACCELERATOR_TYPE=v5litepod-4 TPU_WORKER_HOSTNAMES=localhost

# The TPU compiler, in a separate folder: inside .venv, JAX would try to start a TPU at every import.
$(TPU): requirements/tpu.txt $(STAMP)
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  echo "Fetching the TPU compiler into .tpu (once; about 500 MB) ..."; \
	  rm -rf .tpu && $(PY) -m ensurepip >/dev/null 2>&1; \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target .tpu -r requirements/tpu.txt; \
	else mkdir -p .tpu; fi && touch $@

tpu: $(TPU)

# Compiles the TPU kernel for a v5e on a machine without one.
tpu-example: $(TPU)
	$(FOR_A_TPU) $(PY) -m examples.fused_on_tpu

# NVIDIA's compiler, also in a separate folder. `make test` does not use it, because the download is 1.8 GB.
$(GPU): requirements/gpu.txt $(STAMP)
	@echo "Fetching NVIDIA's compiler into .gpu (once; about 1.8 GB) ..."; \
	rm -rf .gpu && $(PY) -m ensurepip >/dev/null 2>&1; \
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target .gpu -r requirements/gpu.txt && touch $@

gpu: $(GPU)

# Compiles attention's gradients for two H100 GPUs. It needs Linux on x86-64 or ARM, and no GPU.
test-gpu-compile: $(GPU)
	JAX_PLATFORMS=cpu PYTHONPATH=.gpu:. $(PY) tests/programs/compile_for_gpu.py

# An environment with the oldest versions that pyproject.toml allows. The tests below find uses of newer JAX
# features in imports, traces, gradients, layers and checkpoints.
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

ON_THE_OLDEST := $(addprefix tests/,repository/test_every_module.py attention/test_conformance.py engine/test_operation.py \
  engine/test_custom_kernel.py score_mods/test_score_mods.py lecture/test_layers.py)
test-oldest: $(OLDEST)
	$(COMPILED) .venv-oldest/bin/python -m pytest -q -p no:cacheprovider $(ON_THE_OLDEST) $(ARGS)

# Builds the site into build/docs (docs/adr/0020); warnings are errors. A chapter of the course runs again if its code or
# the packages changed; its results are kept in build/chapters.
docs: $(STAMP)
	@echo "Building the site into build/docs: half a minute, and up to five minutes more if the course's chapters run ..."
	@rm -rf build/docs
	@$(COMPILED) $(PY) -m sphinx -W --keep-going -n -E -b html -d build/doctrees docs build/docs
	@echo "Open build/docs/index.html in a browser."

# Tests the viewer's pages and the site (built by `make docs`) in Chromium: the program that CHROMIUM names, or Debian's, which root installs here.
test-browser: $(STAMP)
	@if ! command -v chromium >/dev/null && [ -z "$$CHROMIUM" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "Installing Debian's chromium (once; about 300 MB) ..."; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	fi
	BROWSER_TESTS=required $(PY) -m pytest -q tests/browser $(ARGS)

# Runs the attention tests of jax.nn, flax and tokamax on our functions. Give the paths of their clones:
#   make test-peers JAX=/path/to/jax FLAX=/path/to/flax TOKAMAX=/path/to/tokamax
# Tokamax needs more packages: PEERS_PYTHON= names a Python that has them and ours.
PEERS_PYTHON ?= $(PY)
test-peers: $(STAMP)
	$(PEERS_PYTHON) tests/programs/peers.py $(if $(JAX),--jax $(JAX)) $(if $(FLAX),--flax $(FLAX)) $(if $(TOKAMAX),--tokamax $(TOKAMAX))

lint: $(STAMP)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m codespell_lib .

types: $(STAMP)
	$(PY) -m pyrefly check --summary=none

# Runs pytest with doctests and with checks of shapes and dtypes at run time.
PYTEST := $(PY) -m pytest -n 2 --doctest-modules --jaxtyping-packages=attn_jax,experiments,beartype.beartype

# Compiles without optimisation, because most test code runs once. The wheel is tested with the default options.
QUICK := XLA_FLAGS="$$XLA_FLAGS --xla_backend_optimization_level=0"

# Tests in a file of tests/experiments share one training run, so each file runs in one process. They kill processes
# while these write files, so they do not use the folder of compiled functions.
unit: $(STAMP) $(TPU)
	$(QUICK) $(COMPILED)-quickly $(PYTEST) --ignore=tests/experiments --ignore=tests/browser $(ARGS)
	$(QUICK) $(PYTEST) --dist loadfile tests/experiments

# All cases of the fused TPU kernel, interpreted, of which `make test` runs a part: about an hour on two cores.
test-fused-tpu: $(STAMP)
	EVERY_CASE=1 $(QUICK) $(COMPILED)-quickly $(PYTEST) -q tests/engine/mosaic_tpu $(ARGS)

# Runs the tests that compare bits again, with XLA compiling for CPUs with AVX2, with AVX-512, and for this CPU. Each
# kind has its own folder of compiled functions. For one kind: make test-cpus CPUS=AVX2.
CPUS ?= AVX2 AVX512 native
BITS  = $(shell grep -rlE 'assert_equal|array_equal|same_bits' tests --include='test_*.py' --exclude-dir=browser \
  --exclude-dir=experiments --exclude-dir=repository --exclude-dir=viewer)

test-cpus: $(STAMP)
	@for cpu in $(CPUS); do \
	  case $$cpu in native) flags=;; *) flags=--xla_cpu_max_isa=$$cpu;; esac; \
	  echo "Compiled for a CPU with $$cpu:"; \
	  XLA_FLAGS="$$XLA_FLAGS $$flags" $(COMPILED)-$$cpu $(PYTEST) -q $(BITS) $(ARGS) || exit 1; \
	done

# Tests the built package from an empty directory, without run-time type checks and with XLA's default options: all
# tests that compare numbers with the definition, and some of each other part, because a wheel can lack a file.
IN_THE_WHEEL := $(addprefix tests/,repository/test_every_module.py \
  $(addprefix attention/test_,attend.py bad_input.py conformance.py explain.py guarantees.py) \
  $(addprefix caches/test_,caches.py paged_cache.py) masks/test_masks.py positions/test_rotary.py score_mods/test_score_mods.py \
  $(addprefix lineage/test_,position_identities.py self_attention_identities.py) \
  $(addprefix models/test_,encoder_decoder.py gpt.py hf_checkpoints.py) viewer/test_payload.py)

wheel: $(STAMP)
	@rm -rf build/wheel build/site && mkdir -p build
	$(PY) -m hatchling build --target wheel --directory build/wheel >/dev/null
	$(PY) -m zipfile -e build/wheel/*.whl build/site
	@empty=$$(mktemp -d) && cp -r tests $$empty/tests && cd $$empty && \
	  $(COMPILED) PYTHONPATH=$(CURDIR)/build/site $(CURDIR)/$(PY) -m pytest -q -n 2 $(IN_THE_WHEEL) --confcutdir=. ; \
	  status=$$?; rm -rf $$empty; exit $$status

# Builds the wheel and the source archive of a release, checks them as a package index does, and installs each into
# an empty environment, with the versions of the lock and without extras.
package: $(STAMP)
	@rm -rf build/dist build/installed && mkdir -p build
	$(PY) -m build --no-isolation --outdir build/dist . >build/dist.log || { cat build/dist.log; exit 1; }
	$(PY) -m twine check --strict build/dist/*
	@sed -nE 's/^([a-zA-Z0-9_.-]+==[^\\]*[^ \\]).*/\1/p' requirements/dev.txt >build/versions.txt
	@for archive in build/dist/*; do \
	  echo "Installing $$archive into an empty environment (about 400 MB) ..."; \
	  $(PY) -m venv --clear build/installed && \
	  build/installed/bin/python -m pip install --quiet --disable-pip-version-check -c build/versions.txt $$archive pytest && \
	  (cd build/installed && bin/python $(CURDIR)/tests/programs/installed_package.py) || exit 1; \
	done; rm -rf build/installed

# The newest versions that pyproject.toml allows, which no lock names: finds what a new JAX or Flax breaks.
test-newest: $(STAMP)
	@rm -rf .venv-newest && $(PY) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check '.[models,checkpoints]' pytest
	$(COMPILED)-newest .venv-newest/bin/python -m pytest -q -p no:cacheprovider $(ON_THE_OLDEST) $(ARGS)

lock:
	uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-annotate --no-header --group dev pyproject.toml -o requirements/dev.txt
	uv pip compile --quiet --universal --python-version 3.12 --resolution lowest-direct --generate-hashes --no-annotate --no-header --group oldest pyproject.toml -o requirements/oldest.txt
	echo libtpu | uv pip compile --quiet --python-version 3.12 --generate-hashes --no-annotate --no-header --no-deps - -o requirements/tpu.txt
	(sed -n 's/^jax==\([0-9.]*\).*/jax-cuda13-plugin==\1\njax-cuda13-pjrt==\1/p' requirements/dev.txt; \
	  printf '%s\n' nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-nvrtc nvidia-cudnn-cu13) | \
	  uv pip compile --quiet --python-version 3.12 --generate-hashes --no-annotate --no-header --no-deps - -o requirements/gpu.txt

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .tpu .gpu build
