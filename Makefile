# Two of these are all that most people need: make run, and make test.
# Everything that CI does is a target here; .ci/ has the few scripts they call.

SHELL = /bin/bash

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
IMAGE   ?= localhost/portico:dev

FUZZTIME   ?= 30s
BENCHCOUNT ?= 6

# Linters are built once per version and kept out of go.mod.
LINT_VERSION = v2.15.0
CACHE        = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/portico
LINT         = $(CACHE)/bin/golangci-lint-$(LINT_VERSION)/golangci-lint

# Packages with tests that hold to figures: allocations, memory, time.
BUDGETS = ./router/... ./certs ./ingress/... ./svcproxy

LDFLAGS = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# One set of build settings, so that the binary, the linters and the tests without the race
# detector share one build cache. Version control is asked above and not by the go command,
# which fails in a checkout that another user owns.
GO = CGO_ENABLED=0 go
FLAGS = -trimpath -buildvcs=false

.DEFAULT_GOAL := help
.PHONY: help build run test packages unit race budgets lint fmt fuzz bench bench-l4 microbench e2e image cluster-up cluster-down clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the static binary, bin/portico
	$(GO) build $(FLAGS) -ldflags '$(LDFLAGS)' -o bin/portico ./cmd/portico

run: build ## serve the demo on this machine, no cluster needed
	bin/portico serve --demo

test: ## everything: packages, build, lint, unit, race, golden and fuzz-seed tests, real cluster
	@.ci/test

packages: ## install the Debian packages that building and testing need, where missing
	@.ci/packages

unit: race budgets ## all tests but those on a real cluster

race: ## tests under the race detector, with golden files and fuzz seeds
	CGO_ENABLED=1 go test -race -count=1 -timeout 30m $(FLAGS) ./... # a busy machine may need ten for router alone

budgets: ## the tests of allocations, memory and time, which the race detector changes, without it
	$(GO) test -count=1 $(FLAGS) $(BUDGETS)

lint: $(LINT) ## static checks and formatting, of the product and of e2e
	CGO_ENABLED=0 GOFLAGS=-trimpath $(LINT) run ./...
	cd e2e && CGO_ENABLED=0 GOFLAGS=-trimpath $(LINT) run ./...

fmt: $(LINT) ## format all Go code
	$(LINT) fmt ./... && cd e2e && $(LINT) fmt ./...

fuzz: ## each fuzz target for FUZZTIME (30s)
	@.ci/fuzz $(FUZZTIME)

bench: build ## compare with nginx, HAProxy and net/http (root; BENCH="-rounds 1 -only h1", see bin/bench -help)
	@.ci/bench $(BENCH)

bench-l4: build ## compare svcproxy with the real kube-proxy (root; BENCH="-only switch-10,memory -rounds 1", see bin/bench-l4 -help)
	cd e2e && $(GO) build $(FLAGS) -o ../bin/bench-l4 ./cmd/bench-l4
	bin/bench-l4 $(BENCH)

microbench: ## benchmarks of the packages into bin/microbench/new.txt, compared with the last ones
	@.ci/microbench $(BENCHCOUNT)

image: build ## the container image as an OCI archive, bin/portico.tar, without Docker
	cd e2e && $(GO) run ./cmd/image --binary ../bin/portico --name $(IMAGE) --user 65532:65532 --entrypoint /portico --out ../bin/portico.tar

e2e: image ## boot a real two-node cluster and test the image on it (root)
	cd e2e && go test ./... -p 1 -count=1 -v -timeout 60m

cluster-up: image ## boot the same cluster to use by hand
	cd e2e && go run ./cmd/cluster up && go run ./cmd/cluster load ../bin/portico.tar

cluster-down: ## end it
	cd e2e && go run ./cmd/cluster down

clean: ## remove bin/
	rm -rf bin

$(LINT):
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
