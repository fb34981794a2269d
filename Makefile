# Gudgeon. `make` lists the targets; `make demo` and `make test` do everything on a fresh Debian machine with Python 3.11.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
GUDGEON := $(BIN)/gudgeon
PROTO := edge_runtime/link/sparkplug
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
APT := command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }

.DEFAULT_GOAL := help
.PHONY: rollout-sim help setup setup-train setup-convert setup-browser demo test check format smoke ci-faults proofs setup-faults setup-field setup-opcua-peer setup-cloud setup-swupdate up chaos crash-points kills update-kills kill-test hog-test soak drain lead-time swap-test reconnects fleet proto bench model pump-model clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.done ## make .venv with everything but the training environment
$(VENV)/.done: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make setup: needs Python 3.11 or newer (set PYTHON=…)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(APT) && $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3-venv; } || \
	  { echo "make setup: python3-venv is missing; install it with: apt-get install python3-venv"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "installing Gudgeon into $(VENV) (a minute or two)"
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[edge,opcua,sparkplug,cbor,cloud,postgres,sim,tools,bench,dev]' 2>&1 | grep -v '^WARNING' || true
	@$(BIN)/python -c 'import onnxruntime, fastapi, asyncua, alembic, asyncpg, pytest' && touch $@

setup-train: .venv-train/.done ## make .venv-train (PyTorch, CPU) that `gudgeon train` calls
.venv-train/.done: pyproject.toml | setup
	@[ -x .venv-train/bin/python ] || $(PYTHON) -m venv .venv-train
	@echo "installing the training environment into .venv-train (a few minutes)"
	@.venv-train/bin/pip install -q --disable-pip-version-check -e '.[train]' 2>&1 | grep -v '^WARNING' || true
	@rm -f .venv-train/bin/gudgeon
	@.venv-train/bin/python -c 'import torch, onnx, onnxruntime, sklearn' && touch $@

setup-convert: .venv-convert/.done ## make .venv-convert (litert-torch, 2 GB): then `gudgeon train` adds a .tflite variant
.venv-convert/.done: pyproject.toml | setup
	@[ -x .venv-convert/bin/python ] || $(PYTHON) -m venv .venv-convert
	@echo "installing the converter environment into .venv-convert (some minutes)"
	@.venv-convert/bin/pip install -q --disable-pip-version-check -e '.[convert]' 2>&1 | grep -v '^WARNING' || true
	@rm -f .venv-convert/bin/gudgeon
	@.venv-convert/bin/python -c 'import litert_torch, ai_edge_quantizer' && touch $@

setup-browser: ## install headless Chromium for the page test (Debian, root or sudo); skipped elsewhere
	@command -v chromium >/dev/null || { $(APT) && $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; } || echo "no Chromium: the page test will be skipped"

setup-faults: ## install what the network and clock faults need (Debian, root or sudo); without it the proxy alone
	@{ command -v mosquitto && command -v nft && command -v ip && command -v gcc; } >/dev/null || { $(APT) && $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto nftables iproute2 gcc libc6-dev e2fsprogs >/dev/null; } || \
	  echo "not installed: mosquitto nftables iproute2 gcc; some faults fall back to the proxy or are skipped"

setup-field: ## install what the independent Modbus server needs (Debian, root or sudo); its tests are skipped elsewhere
	@{ command -v gcc && [ -e /usr/include/modbus/modbus.h ]; } >/dev/null || { $(APT) && $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev libmodbus-dev >/dev/null; } || \
	  echo "not installed: gcc libmodbus-dev; what needs them is skipped"

setup-opcua-peer: ## install node-opcua from npm into var/ (needs Node.js); its tests are skipped elsewhere
	@[ -d var/opcua-peer/node_modules/node-opcua ] || { command -v npm >/dev/null && mkdir -p var/opcua-peer && \
	  npm install --prefix var/opcua-peer --no-audit --no-fund --ignore-scripts --silent node-opcua@2 >/dev/null; } || \
	  echo "not installed: node-opcua (needs npm); what needs it is skipped"

setup-cloud: ## install Mosquitto and PostgreSQL (Debian, root or sudo); the tests that need them are skipped elsewhere
	@{ command -v mosquitto && ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || { $(APT) && $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto postgresql >/dev/null; } || \
	  echo "not installed: mosquitto postgresql; what needs them is skipped"

setup-swupdate: ## install SWUpdate, a foreign update client (Debian, root or sudo); its test is skipped elsewhere
	@{ command -v swupdate && command -v openssl; } >/dev/null || { $(APT) && $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends swupdate openssl >/dev/null; } || \
	  echo "not installed: swupdate openssl; what needs them is skipped"

up: setup setup-cloud ## a larger cloud on this machine: Mosquitto, PostgreSQL, two ingest workers, the page (ARGS="--workers 4")
	@$(GUDGEON) up $(ARGS)

demo: setup ## the whole line on this machine with a live page (ARGS="--parts 500 --serve …")
	@$(GUDGEON) demo $(ARGS)

test: setup setup-browser setup-cloud ## the default tests, some minutes on two cores (ARGS="-k name …")
	@$(BIN)/python -m pytest $(or $(ARGS),-n 3 --dist worksteal)

check: setup ## format, lint, types, import contracts
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

format: setup ## format and fix what can be fixed
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

smoke: ## the bare `edge` extra in an empty environment, one simulated minute
	@bash tools/check/smoke_edge.sh

ci-faults: setup setup-train setup-faults setup-field setup-opcua-peer setup-swupdate check smoke ## quick faults and a tiny training run
	@.venv-train/bin/python -m pytest tools/pipeline/tests/test_recipe.py tools/pdm/tests/test_members.py
	@$(BIN)/python -m pytest -m "slow and not proof" hil_tests tools $(ARGS)

proofs: setup setup-train setup-cloud setup-faults ## tests of minutes each: whole runtimes over the air, the demo of updates, all swaps, … (ARGS="-k swaps")
	@$(BIN)/python -m pytest -m proof hil_tests tools $(ARGS)

kill-test: setup ## 1000 parts at 20/s with 20 kill -9 of control and link
	@$(GUDGEON) demo --parts 1000 --parts-per-s 20 --kills 20 $(ARGS)

hog-test: setup ## the same line twice, without and with a busy loop in link
	@$(GUDGEON) demo --parts 600 --parts-per-s 20 $(ARGS) && $(GUDGEON) demo --parts 600 --parts-per-s 20 --hog $(ARGS)

chaos: setup setup-faults ## a device and cloud pair through every named fault (ARGS="packet-loss --json")
	@$(GUDGEON) chaos $(if $(ARGS),$(ARGS),all)

crash-points: setup setup-faults ## a crash at every durable operation of outbox, store, updater and files (ARGS="outbox-life --json")
	@$(BIN)/python -m tools.crash $(ARGS)

kills: setup setup-faults ## 2000 kill -9 of producer, link and ingest workers, and the ledger (ARGS="--kills 100")
	@$(BIN)/python -m tools.kills $(ARGS)

update-kills: setup ## 200 kill -9 of the updater over signed releases, a real cloud on loopback (ARGS="--kills 20 --json")
	@$(BIN)/python -m tools.kills.update $(ARGS)

soak: setup ## 90 simulated days offline within 200 MB (ARGS="--days 1 --json")
	@$(BIN)/python -m tools.proofs.soak $(ARGS)

reconnects: setup setup-field setup-opcua-peer ## 500 forced reconnects to foreign Modbus and OPC UA servers (ARGS="--drops 20", "--hours 24")
	@$(BIN)/python -m tools.proofs.reconnects $(ARGS)

drain: setup setup-faults ## a million records queued offline, then delivered beside live ones (ARGS="--records 100000")
	@$(BIN)/python -m tools.proofs.drain $(ARGS)

.PHONY: restore-drill
restore-drill: setup setup-cloud ## lose a cloud, restore a moment of it, measure RPO and RTO, on both databases (ARGS="--store sqlite --json")
	@$(BIN)/python -m tools.proofs.restore_drill $(ARGS)

rollout-sim: setup ## 10 000 simulated devices through the rollout code, seven scenarios (ARGS="--devices 1000 --only silent --json")
	@$(BIN)/python -W ignore -m tools.proofs.rollout $(ARGS)

swap-test: setup ## models swapped on a simulated line at 20 parts/s, good ones and bad ones (ARGS="--swaps 10 --faults none --json")
	@$(GUDGEON) bench swap $(ARGS)

lead-time: setup ## alarm lead time and false alarms over 50 seeded lives of the simulated pump (ARGS="--runs 10 --json")
	@OMP_NUM_THREADS=1 $(BIN)/python -m tools.proofs.lead_time $(ARGS)

proto: setup ## generate sparkplug_b_pb2.py again from sparkplug_b.proto
	@$(BIN)/python -m grpc_tools.protoc --proto_path=$(PROTO) --python_out=$(PROTO) sparkplug_b.proto

fleet: setup setup-faults ## 1000 emulated devices through the restart of their broker (ARGS="--devices 100 --json")
	@$(GUDGEON) fleet $(ARGS)

bench: setup setup-cloud setup-faults ## loop, infer, outbox, uplink and ingest against their floors
	@for what in loop infer outbox uplink ingest; do $(GUDGEON) bench $$what || exit; done

model: setup setup-train ## train the shipped bundle models/surface again from rendered images
	@$(BIN)/python -m tools.pipeline.default_model $(ARGS)

pump-model: setup setup-train ## make the shipped bundles models/pump again from generated lives
	@OMP_NUM_THREADS=1 .venv-train/bin/python -m tools.pdm.pump.build $(ARGS)

clean: ## remove environments and run files
	@rm -rf $(VENV) .venv-train .venv-convert var build dist *.egg-info
