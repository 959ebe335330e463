# Signet. `make demo` shows it, `make test` tests it; each sets up all that it needs.

NODE := node_modules/.bin/node
AVA := $(NODE) node_modules/.bin/ava
CONFIG ?= deploy/examples/signet.yaml
SOURCES := $(shell find src proto -type f)

.DEFAULT_GOAL := help
.PHONY: help install build check test test-one interop bench bench-render e2e upstreams name-constraints status-load descriptors demo run clean

help: ## show this list
	@echo "Signet, a SPIFFE workload identity agent. Targets:"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "First steps: make demo"

install: node_modules/.installed ## install the pinned dependencies, Node.js 26 among them

node_modules/.installed: package.json package-lock.json .npmrc
	@echo "installing dependencies (a minute on a fresh machine) ..."
	@npm ci --no-progress --loglevel=error
	@test -x $(NODE) || { echo "the npm package 'node' has not installed its binary; are npm install scripts allowed?" >&2; exit 1; }
	@touch $@

build: dist/.built ## compile src to dist

dist/.built: node_modules/.installed tsconfig.json tsconfig.build.json $(SOURCES)
	@rm -rf dist
	@$(NODE) node_modules/typescript/bin/tsc -p tsconfig.build.json
	@touch $@

check: node_modules/.installed ## check the types of src and test, and that BENCHMARKS.md is what bench/results give
	@$(NODE) node_modules/typescript/bin/tsc -p tsconfig.json
	@$(NODE) test/bench/render.ts --check

test: check build ## run all tests (units, behaviour, hostile callers, interop where toolchains are present)
	@$(NODE) test/run.ts

test-one: build ## run one test file: make test-one FILE=test/spiffe/id.test.ts
	@test -n "$(FILE)" || { echo "which one? make test-one FILE=test/spiffe/id.test.ts" >&2; exit 2; }
	@$(AVA) --verbose $(FILE)

interop: build ## run only the tests with the published SPIFFE clients
	@$(NODE) test/run.ts test/interop/*.test.ts

bench: build ## measure and write bench/results and BENCHMARKS.md; BENCH_PEER=spire: SPIRE beside it; QUICK=1: a minute, writes to .cache
	@$(NODE) test/bench/bench.ts $(if $(QUICK),--quick) $(BENCH_ARGS)

bench-render: node_modules/.installed ## write BENCHMARKS.md and its picture again from bench/results
	@$(NODE) test/bench/render.ts

e2e: build ## run the agent in a real Kubernetes: KUBECONFIG, or the harness beside the checkout; some 20 minutes
	@$(NODE) test/e2e/e2e.ts $(STEPS)

upstreams: build ## run the whole agent under real CAs (Vault where its program is there): outage, rotations, clients; some 30 minutes
	@$(NODE) test/upstreams/upstreams.ts $(STEPS)

name-constraints: node_modules/.installed ## show which TLS stacks enforce a name constraint (OpenSSL, Node, Python, Go, Java, Rust)
	@$(NODE) test/vectors/name-constraints/run.ts

status-load: node_modules/.installed ## simulate 200 agents' rule status at a real API server (SIGNET_TEST_KUBECONFIG); some 17 minutes
	@$(NODE) test/registration/status/simulate.ts $(AGENTS)

descriptors: node_modules/.installed ## make proto/descriptors.binpb, which reflection answers from, with protoc
	@rm -rf .cache/protos && mkdir -p .cache/protos/grpc/health/v1
	@cp proto/workloadapi.proto .cache/protos/ && cp proto/health.proto .cache/protos/grpc/health/v1/
	@cp -r node_modules/@grpc/reflection/build/proto/grpc/reflection .cache/protos/grpc/
	@protoc -I .cache/protos --include_imports --descriptor_set_out=proto/descriptors.binpb workloadapi.proto \
		grpc/health/v1/health.proto grpc/reflection/v1/reflection.proto grpc/reflection/v1alpha/reflection.proto

demo: build ## show the agent at work: identities, a rotation, a clean end
	@sh deploy/examples/demo.sh

run: build ## run the agent with CONFIG (default deploy/examples/signet.yaml)
	@deploy/signet agent --config $(CONFIG)

clean: ## remove what was built and cached
	@rm -rf dist .cache node_modules
