# Everything a newcomer or CI calls. Each target does its own set-up, once; no root is needed.
#
#   VENV=folder     virtual environment (.venv)
#   PYTHON=program  Python to make it with (the first python3 that is 3.11 or later)
#   DATA=file       data set of `demo` and `paper` (the built-in one), SPLIT=name one of its splits
#   MOSQUITTO=file  broker program (found, or fetched into the virtual environment)

VENV ?= .venv
export VENV PYTHON MOSQUITTO
BIN := $(VENV)/bin
DDNN := $(BIN)/ddnn

.DEFAULT_GOAL := help
.PHONY: help setup setup-training setup-dev demo test check train contact-sheet simulate test-faults test-security test-rollout audit paper docs bench-sections bench-rollout bench-device soak bench-arm64 test-arm64 test-picamera2 deploy undeploy status test-deploy collect clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target text; do printf '  make %-14s %s\n' "$$target" "$$text"; done

setup: ## virtual environment and mosquitto, enough to run
	@scripts/setup demo

setup-training: ## the same and PyTorch, enough to train
	@scripts/setup training

setup-dev: ## the same and all tools, enough to develop
	@scripts/setup dev

demo: $(if $(DATA)$(PRESET),setup-training,setup) ## the whole system on this machine; DATA=set.npz SPLIT=random PRESET=f-devices-edges-cloud: train first
	@$(DDNN) demo $(if $(DATA),--data "$(DATA)") $(if $(SPLIT),--split "$(SPLIT)") \
		$(if $(PRESET),--preset "$(PRESET)")

test: check ## everything: make check, then the tests with real processes and a real broker
	$(BIN)/pytest -m "live and not faults and not security"

check: setup-dev ## all checks that need no network: lint, format, types, layers, offline tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not live and not faults and not security"

simulate: setup-dev ## HOURS=n SEED=s: so many device-hours of faults in virtual time, every promise checked
	@$(BIN)/python -m tests.simulation --hours $(or $(HOURS),100) --seed $(or $(SEED),0)

test-faults: setup-dev ## break real processes, brokers and networks (minutes; root adds network namespaces)
	$(BIN)/pytest -m faults

test-security: setup-dev ## attack a running site on its production configuration (minutes)
	$(BIN)/pytest -m security

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

docs: setup-dev ## write docs/commands.md from the commands' help
	$(BIN)/python scripts/commands_doc.py

bench-sections: setup-dev ## sections beside the float export and torch; DOCS=1: into docs/benchmarks.md
	@$(BIN)/python -m benchmarks.sections $(if $(DOCS),--write-docs)

test-rollout: setup-dev ## three roll-outs at full frame rate: one good, one refused, one that fails its trial
	$(BIN)/pytest -s tests/live/test_rollout.py tests/live/test_models.py

bench-rollout: setup-dev ## push 50 kB and 2 MB to NODES=50 nodes on this machine; DOCS=1: into docs/benchmarks.md
	@$(BIN)/python -m benchmarks.rollout --nodes $(or $(NODES),50) $(if $(DOCS),--write-docs)

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

deploy: setup ## SITE=folder BUNDLE=folder: install or upgrade; or HOSTS="pi@cam0 pi@cam1" ROLE=device SETTINGS=folder
	@scripts/deploy deploy

undeploy: setup ## SITE=... or HOSTS=...: remove it; bundles and recordings stay
	@scripts/deploy undeploy

status: setup ## SITE=... or HOSTS=...: version and state of the services on each host
	@scripts/deploy status

test-deploy: setup-dev ## deploy to a container with systemd by ssh: upgrades, faults, rollback (root, Debian; minutes)
	@scripts/fetch-host build/deploy-host || { [ $$? = 3 ] && echo "skipped: see above"; exit; }; \
		DDNN_TEST_DEPLOY=1 $(BIN)/pytest tests/deploy

collect: ## HOSTS="pi@cam0 pi@cam1": bring recordings home into OUT (recordings), RECORDINGS=folder on them
	@test -n "$(HOSTS)" || { echo 'name the cameras: make collect HOSTS="pi@cam0 pi@cam1"'; exit 2; }
	@mkdir -p "$(or $(OUT),recordings)/train/unsorted"
	@for host in $(HOSTS); do \
		rsync -rt --exclude='.*' --exclude='table-*' \
			--rsync-path='sudo rsync' "$$host:$(or $(RECORDINGS),/var/lib/ddnn/device/recordings)/*/" \
			"$(or $(OUT),recordings)/train/unsorted/" || exit 1; \
	done
	@echo "sort the samples of $(or $(OUT),recordings)/train/unsorted into train/<class> and test/<class>"

clean: ## remove build products and caches (the virtual environment stays)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
