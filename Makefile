# hoopctl: `make help` lists what can be made.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export CGO_ENABLED ?= 0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  = -s -w -X main.version=$(VERSION)
BIN      = bin/hoopctl

# Tools, pinned. They are run by `go run` and never part of go.mod.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
GORELEASER  = github.com/goreleaser/goreleaser/v2@v2.15.4

.PHONY: help
help: ## what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/hoopctl
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/hoopctl

.PHONY: setup
setup: ## what the tests need of the system (PostgreSQL); installs it where that asks no question
	@.ci/setup.sh

.PHONY: test
test: setup lint vuln cross unit attacks ## everything that must hold: lint, vet, vulnerabilities, builds, tests with -race, attacks

.PHONY: unit
unit: ## the tests, with the race detector
	CGO_ENABLED=1 go test -race -timeout 25m ./...

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt'd:"; echo "$$out"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...

.PHONY: vuln
vuln: ## no vulnerable symbol can be reached; the check itself is checked
	@.ci/vuln.sh $(GOVULNCHECK)

.PHONY: cross
cross: build ## the released target of this machine, and one other
	GOOS=windows GOARCH=arm64 go build -trimpath -o /dev/null ./cmd/hoopctl

.PHONY: release-check
release-check: ## goreleaser: configuration, and all six targets
	go run $(GORELEASER) check
	go run $(GORELEASER) build --snapshot --clean

.PHONY: demo
demo: build setup ## walk the main job with real commands; leaves nothing running
	@.ci/demo.sh $(BIN)

.PHONY: dev
dev: build setup ## the whole house on this machine, until Ctrl-C
	$(BIN) dev

.PHONY: attacks
attacks: build setup ## every masking attack through a real broker: none may leak, and ordinary queries go on
	@.ci/attacks.sh $(BIN) --quick

.PHONY: attacks-composed
attacks-composed: build setup ## the same with each value encoded in six ways, at both endpoints (minutes)
	@.ci/attacks.sh $(BIN) --compose

.PHONY: bench
bench: build setup ## side by side: direct, a plain relay, pgbouncer, hoopctl; then evidence, decisions, masks
	go run ./.ci/bench -hoopctl $(BIN) $(BENCH)
	go test -run '^$$' -bench 'Append|Durable|Verify|Record|SmallStatement' -benchtime 1s ./server/evidence
	go test -run '^$$' -bench 'Decide|Rows' -benchtime 1s ./policy ./policy/mask

SOAK ?= 10m
.PHONY: soak
soak: build setup ## mixed load for SOAK (10m), kill -9 half-way: memory and files flat, no row unrecorded, evidence verifies
	go run ./.ci/bench -hoopctl $(BIN) -soak $(SOAK)

.PHONY: soak-evidence
soak-evidence: ## 50 rounds of kill -9 under load, and a flip of every byte of the evidence
	EVIDENCE_ROUNDS=50 EVIDENCE_FLIPS=all go test ./server/evidence -run 'T70_KillNine|T72_FlippedByte' -timeout 60m -v -count=1

.PHONY: mask-report
mask-report: ## precision and recall of the scanner, per entity
	go test ./policy/mask -run TestMaskReport -v -count=1

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME
	@.ci/fuzz.sh $(FUZZTIME)
