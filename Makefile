# All that CI does is a target of this file. `make` is build, test and lint.
.DEFAULT_GOAL := all
SHELL := bash

# The oldest Go that evenkeel supports: the go directive of go.mod, at its last patch.
OLDEST_GO := go1.25.14

BENCH     ?= .
BENCHTIME ?= 1s
COUNT     ?= 6
FUZZTIME  ?= 10s

ROOT    := $(CURDIR)
# The nested modules, from go.work.
MODULES := $(shell GOWORK=$(ROOT)/go.work go list -m -f '{{.Dir}}' | grep -Fvx '$(ROOT)' | sed 's|^$(ROOT)/||')

# Every module is built with what its own go.mod says.
export GOWORK := off
# Debian keeps servers there, and not in everybody's path.
export PATH := $(PATH):/usr/sbin:/sbin

GOTEST := $(ROOT)/bin/gotest
ifeq ($(CI),true)
# Nothing may be skipped.
export EVENKEEL_REQUIRE_SERVERS := 1
GOTEST += -strict
endif

.PHONY: all
all: build test lint

.PHONY: build
build: ## compile and vet everything, tests and examples included, as one workspace
	GOWORK=$(ROOT)/go.work go build work
	GOWORK=$(ROOT)/go.work go vet work

.PHONY: setup
setup: ## install what the tests need besides Go, or say what is missing
	@scripts/setup

.PHONY: test
test: setup test-race test-alloc test-modules vet-386 tidy ## all tests

.PHONY: test-race
test-race: bin/gotest ## tests of the root module, with the race detector
	$(GOTEST) -race -shuffle=on -timeout 10m ./...

.PHONY: test-alloc
test-alloc: bin/gotest ## budgets of allocations, which hold without the race detector only
	@pkgs=$$(go list -f '{{.ImportPath}} {{join .TestGoFiles " "}} {{join .XTestGoFiles " "}}' ./... | awk '/alloc_test\.go/ {print $$1}'); \
	if [ -n "$$pkgs" ]; then $(GOTEST) -count=1 -run Alloc $$pkgs; fi

.PHONY: test-modules
test-modules: bin/gotest ## tests of the nested modules, each by itself
	@for m in $(MODULES); do \
		if [ -n "$$(find $$m -name '*_test.go' -print -quit)" ]; then \
			echo "cd $$m && $(GOTEST) -race -shuffle=on -timeout 10m ./..."; \
			(cd $$m && $(GOTEST) -race -shuffle=on -timeout 10m ./...) || exit 1; \
		fi; \
	done

.PHONY: vet-386
vet-386: ## compile the root module for 32 bits
	GOARCH=386 go vet ./...

.PHONY: test-386
test-386: bin/gotest ## tests of the root module on 32 bits, where atomics must be aligned
	GOARCH=386 $(GOTEST) -shuffle=on -timeout 10m ./...

.PHONY: test-oldest
test-oldest: bin/gotest ## tests of the root module on the oldest Go, on one and on four processors
	GOTOOLCHAIN=$(OLDEST_GO) $(GOTEST) -shuffle=on -cpu 1,4 -timeout 10m ./...

.PHONY: tidy
tidy: ## check that every go.mod says exactly what is needed
	@for m in . $(MODULES); do \
		echo "cd $$m && go mod tidy -diff"; \
		(cd $$m && go mod tidy -diff) || exit 1; \
	done

.PHONY: lint
lint: bin/golangci-lint ## linters, over every module
	@for m in . $(MODULES); do \
		echo "cd $$m && golangci-lint run"; \
		(cd $$m && $(ROOT)/bin/golangci-lint run) || exit 1; \
	done

.PHONY: fmt
fmt: bin/golangci-lint ## format every module
	@for m in . $(MODULES); do (cd $$m && $(ROOT)/bin/golangci-lint fmt) || exit 1; done

.PHONY: bench
bench: bin/benchstat ## benchmarks, summarised, and compared with bench/results/old.txt if there is one
	@mkdir -p bench/results
	@set -o pipefail; for m in . $(MODULES); do \
		(cd $$m && go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -count $(COUNT) -benchmem ./...) || exit 1; \
	done | tee bench/results/new.txt
	@cd bench/results && ../../bin/benchstat $$(ls old.txt 2>/dev/null) new.txt

.PHONY: bench-once
bench-once: ## every benchmark once, to see that it runs
	@for m in . $(MODULES); do \
		echo "cd $$m && go test -run '^$$' -bench . -benchtime 1x ./..."; \
		(cd $$m && go test -run '^$$' -bench . -benchtime 1x ./...) || exit 1; \
	done

.PHONY: fuzz
fuzz: ## every fuzz test for FUZZTIME
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file name; do \
		(cd $$(dirname $$file) && set -x && go test -run '^$$' -fuzz "^$${name#func }\$$" -fuzztime $(FUZZTIME) .) </dev/null || exit 1; \
	done

.PHONY: cover
cover: ## how much of the root module its tests reach
	@mkdir -p bin
	@go test -coverprofile bin/cover.out -coverpkg "$$(go list ./... | grep -vE '/(examples|scripts)/' | paste -sd, -)" ./... >bin/cover.log || { cat bin/cover.log; exit 1; }
	@go tool cover -html bin/cover.out -o bin/cover.html
	@go tool cover -func bin/cover.out | tail -n 1
	@echo "by line: bin/cover.html"

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

bin/gotest: scripts/gotest/main.go
	@go build -o $@ ./scripts/gotest

# One build makes them all.
bin/benchstat: bin/golangci-lint
bin/golangci-lint: tools/go.mod tools/go.sum
	cd tools && go build -o ../bin/ tool
