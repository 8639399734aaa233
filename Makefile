# Two commands are enough on a fresh machine with Python 3.11 and pip: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-lowest test-newest wheel test-kill test-memory test-hostile test-slow release-check format check lint constraints watch-bench bench-tinyshakespeare bench-pretrain bench-checkpoint bench-prepare bench-startup

demo: .venv/ready
	$(BIN)/etude demo

test: .venv/ready-dev dev/node_modules/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy --no-warn-unused-ignores benchmarks dev
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadfile

# The suite on the oldest versions that pyproject.toml allows, or on the newest that there are, with any Python:
#   make test-lowest    make test-newest PYTHON=3.13    make test-lowest TESTS=tests/data
# torch is a build for CPUs; UV gives uv other words, as the folder or the index it comes from.
UV ?= --torch-backend cpu
TESTS ?= tests
test-lowest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-lowest test-newest: test-%: .venv/bin/pip
	$(BIN)/pip install -q --disable-pip-version-check uv
	$(BIN)/uv venv -q --clear --python $(if $(filter $(origin PYTHON),command line),$(PYTHON),3.11) .venv-$*
	$(BIN)/uv pip install -q --python .venv-$* $(UV) --resolution $(RESOLUTION) -e '.[dev]'
	.venv-$*/bin/python -m pytest -n 2 --dist loadfile $(TESTS)

# The wheel, built twice: the same bytes, whatever the clock says; and its bill of materials.
wheel: .venv/ready-dev
	$(BIN)/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist/a . && sleep 2
	$(BIN)/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist/b .
	cmp dist/a/*.whl dist/b/*.whl && sha256sum dist/a/*.whl
	$(BIN)/python dev/sbom.py dist/a/*.whl > dist/sbom.cdx.json

test-kill: .venv/ready-dev
	$(BIN)/pytest tests/test_kill.py -s --kills 50

test-memory: .venv/ready-dev
	$(BIN)/pytest tests/engine/test_out_of_memory.py -k 'ranks or random' --shortages 50

test-hostile: .venv/ready-dev
	$(BIN)/pytest tests/hostile --hostile

test-slow: .venv/ready-dev
	$(BIN)/pytest -m slow --slow

# Every attack of docs/release.md, for hours; one alone: make release-check ATTACK=tests/release/test_power.py
ATTACK ?= tests/release tests/hostile
release-check: .venv/ready-dev
	$(BIN)/pytest $(ATTACK) --release --hostile --timeout 0 -s

format: .venv/ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Goes on where it was stopped; hours in all, and scores the curves that there are.
watch-bench: .venv/ready-dev
	$(BIN)/python benchmarks/watch/grid.py
	$(BIN)/python benchmarks/watch/score.py

bench-%: .venv/ready-dev
	$(BIN)/python benchmarks/$*.py

# The full tested set, without labels such as +cpu, which exist nowhere else.
constraints: .venv/ready-dev
	$(BIN)/pip freeze --exclude-editable | sed -E 's/\+[A-Za-z0-9.]+$$//' | sort -f > constraints.txt

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/ready: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/ready-dev: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ .venv/ready

# For the tests of the page: a browser, and from npm what checks its types and its accessibility. Without
# them those tests are skipped, and say so.
dev/node_modules/ready: dev/package.json
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -q chromium; } || echo "no chromium: tests of the page are skipped"
	@command -v npm >/dev/null && npm install --prefix dev --no-package-lock --no-audit --no-fund --silent || echo "no npm: some tests of the page are skipped"
	@mkdir -p dev/node_modules && touch $@
