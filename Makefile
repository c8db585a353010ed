# Everything a newcomer or CI calls. Each target does its own set-up, once; no root is needed.
#
#   VENV=folder     virtual environment (.venv)
#   PYTHON=program  Python to make it with (the first python3 that is 3.11 or later)
#   DATA=file       data set of `demo` and `paper` (the built-in one), SPLIT=name one of its splits
#   MOSQUITTO=file  broker program (found, or fetched into the virtual environment)
#   CHROMIUM=file   browser for tests of pages (the same)

VENV ?= .venv
export VENV PYTHON MOSQUITTO CHROMIUM
BIN := $(VENV)/bin
DDNN := $(BIN)/ddnn

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*\#\# .*/\1/p' $(MAKEFILE_LIST))

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target text; do printf '  make %-14s %s\n' "$$target" "$$text"; done

setup: ## virtual environment and mosquitto, enough to run
	@scripts/setup demo

setup-training: ## the same and PyTorch, enough to train
	@scripts/setup training

setup-dev: ## the same and all tools, enough to develop
	@scripts/setup dev

setup-dashboard: setup ## what `make setup` makes, and the dashboard's libraries
	@$(BIN)/python -c 'import argon2, fastapi, nicegui, sqlalchemy' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -e '.[dashboard]'

demo: $(if $(DATA)$(PRESET),setup-training,setup) $(if $(DASHBOARD),setup-dashboard) ## the whole system on this machine; DASHBOARD=1: with a page in the browser; DATA=set.npz SPLIT=random PRESET=f-devices-edges-cloud: train first
	@$(DDNN) demo $(if $(DASHBOARD),--dashboard $(if $(filter 1,$(DASHBOARD)),8080,$(DASHBOARD))) $(if $(DATA),--data "$(DATA)") $(if $(SPLIT),--split "$(SPLIT)") \
		$(if $(PRESET),--preset "$(PRESET)")

test: check ## everything: make check, then the tests with real processes and a real broker
	$(BIN)/pytest -m "live and not faults and not security and not own_cameras"

check: setup-dev ## all checks that need no network: lint, format, types, layers, offline tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --maxprocesses 8 -m "not live and not faults and not security and not own_cameras"

simulate: setup-dev ## HOURS=n SEED=s: so many device-hours of faults in virtual time, every promise checked
	@$(BIN)/python -m tests.simulation --hours $(or $(HOURS),100) --seed $(or $(SEED),0)

test-faults: setup-dev ## break real processes, brokers and networks (minutes; root adds network namespaces)
	$(BIN)/pytest -m faults

test-security: setup-dev ## attack a running site on its production configuration (minutes)
	$(BIN)/pytest -m security

test-own-cameras: setup-dev ## the way of docs/own-cameras.md: record, collect, label in a browser, train, publish, decide
	$(BIN)/pytest -s -m own_cameras

audit: setup-dev ## known weaknesses in the installed packages (asks PyPI)
	@mkdir -p build
	@$(BIN)/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' >build/installed.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r build/installed.txt

train: setup-training ## train and export the reference bundle into models/reference
	$(DDNN) train --data generated --name reference --out models/reference

contact-sheet: setup ## a picture of samples of the built-in data set, to look at
	@mkdir -p build
	$(DDNN) dataset sheet generated --out build/contact-sheet.png

paper: setup-training ## the paper's experiments; DATA=set.npz SPLIT=random SEEDS=3, QUICK=1: minutes, OPTIONS=...
	@$(DDNN) paper --data "$(or $(DATA),generated)" $(if $(SPLIT),--split "$(SPLIT)") \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(QUICK),--quick) $(OPTIONS)

docs: setup-dev ## write docs/commands.md, docs/metrics.md and the JSON Schemas from the program
	$(BIN)/python scripts/commands_doc.py
	$(BIN)/python scripts/metrics_doc.py

bench-sections: setup-dev ## sections beside the float export and torch; DOCS=1: into docs/benchmarks.md
	@$(BIN)/python -m benchmarks.sections $(if $(DOCS),--write-docs)

test-rollout: setup-dev ## three roll-outs at full frame rate: one good, one refused, one that fails its trial
	$(BIN)/pytest -s tests/live/test_rollout.py tests/live/test_models.py

bench-audits: setup-dev ## how well audits estimate the real disagreement, and what they cost
	@$(BIN)/python -m benchmarks.audits $(ARGS)

bench-rollout: setup-dev ## push 50 kB and 2 MB to NODES=50 nodes on this machine; DOCS=1: into docs/benchmarks.md
	@$(BIN)/python -m benchmarks.rollout --nodes $(or $(NODES),50) $(if $(DOCS),--write-docs)

bench-wire: setup-dev ## bytes on the wire per camera and frame, beside sending pictures; DATA=set.npz SPLIT=...; DOCS=1
	@$(BIN)/python -m benchmarks.wire $(if $(DATA),--data "$(DATA)") $(if $(SPLIT),--split "$(SPLIT)") \
		$(if $(DOCS),--write-docs)

bench-latency: setup-dev ## view to decision beside raw pictures, on loopback and (root) through a slow link; DOCS=1
	@$(BIN)/python -m benchmarks.latency $(if $(DOCS),--write-docs)

bench-gateway: setup-dev ## a gateway's processor time per message, beside subscribers that do nothing; PROFILE=1; SYSCALLS=1; DOCS=1
	@command -v mosquitto_sub >/dev/null || test -x $(VENV)/mosquitto-clients/usr/bin/mosquitto_sub || \
		scripts/fetch-debs $(VENV)/mosquitto-clients mosquitto-clients || true
	@$(BIN)/python -m benchmarks.gateway $(if $(PROFILE),--profile) $(if $(SYSCALLS),--syscalls) $(if $(DOCS),--write-docs)

bench-scale: setup-dev ## sites x cameras on this machine until it breaks, CPU, memory, latency, loss; DOCS=1: into docs/scale.md
	@$(BIN)/python -m benchmarks.scale $(if $(DOCS),--write-docs)

bench-cloud: setup-dev ## what a cloud worker answers per second, beside onnxruntime alone; DOCS=1: into docs/benchmarks.md
	@$(BIN)/python -m benchmarks.cloud $(if $(DOCS),--write-docs)

test-arm64: setup-dev ## sections and agent on emulated Raspberry Pis, byte by byte (Debian x86-64; minutes)
	@scripts/test-arm64 $(BIN)/python

test-picamera2: setup-dev ## the real picamera2 with libcamera's virtual camera (root, Debian x86-64; minutes)
	@scripts/test-picamera2 $(BIN)/python

bench-device: setup-dev ## what a camera's agent costs per frame and in memory, and how often the gate is wrong; DOCS=1
	@$(BIN)/python -m benchmarks.device $(if $(DOCS),--write-docs)
	@$(BIN)/python -m benchmarks.gate $(if $(DOCS),--write-docs)

bench-arm64: test-arm64 ## the agent's memory on aarch64, in an emulated machine (Debian x86-64; minutes); DOCS=1
	@scripts/fetch-arm64-machine build/arm64/machine || { [ $$? = 3 ] && echo "SKIPPED: see above"; exit 77; }
	@$(BIN)/python -m benchmarks.arm64 build/arm64/root build/arm64/machine $(if $(DOCS),--write-docs)

soak: setup-dev ## MINUTES=60: agent and gateway left alone; nothing may grow, wear or get lost
	@$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),60)

bench-api: setup-dev ## the HTTP API with a million decisions in SQLite, measured by wrk; DOCS=1: into docs/benchmarks.md
	@command -v wrk >/dev/null || test -x $(VENV)/wrk/usr/bin/wrk || scripts/fetch-debs $(VENV)/wrk wrk
	@$(BIN)/python -m benchmarks.api $(if $(DOCS),--write-docs)

deploy: setup ## SITE=folder BUNDLE=folder: install or upgrade; or HOSTS="pi@cam0 pi@cam1" ROLE=device SETTINGS=folder
	@scripts/deploy deploy

undeploy: setup ## SITE=... or HOSTS=...: remove it; bundles and recordings stay
	@scripts/deploy undeploy

status: setup ## SITE=... or HOSTS=...: version and state of the services on each host
	@scripts/deploy status

test-deploy: setup-dev ## deploy to a container with systemd by ssh: upgrades, faults, rollback (root, Debian; minutes)
	@scripts/fetch-host build/deploy-host || { [ $$? = 3 ] && echo "skipped: see above"; exit; }; \
		DDNN_TEST_DEPLOY=1 $(BIN)/pytest tests/deploy

collect: setup ## HOSTS="pi@cam0 pi@cam1": bring recordings home into OUT (recordings), RECORDINGS=folder on them
	@test -n "$(HOSTS)" || { echo 'name the cameras: make collect HOSTS="pi@cam0 pi@cam1"'; exit 2; }
	@$(DDNN) collect $(HOSTS) --out "$(or $(OUT),recordings)" \
		$(if $(RECORDINGS),--recordings "$(RECORDINGS)")

clean: ## remove build products and caches (the virtual environment stays)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
