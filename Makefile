.PHONY: help test race lint interop fuzz house examples bench bench-quick \
	chaos chaos-bounded chaos-compare soak model

help:
	@echo "make test         the tests, with a list of what was skipped and why"
	@echo "make race         the tests with the race detector; coverage of the core"
	@echo "make interop      the tests against Node's bee-queue (npm ci in interop/ first)"
	@echo "make lint         vet, staticcheck, golangci-lint"
	@echo "make fuzz         every fuzz target for FUZZTIME (30s, or so many runs: 50000x)"
	@echo "make model        the model-based test with the race detector, STEPS=10000 of each of SEEDS=20"
	@echo "make chaos        break workers, Redis and the network, and count what is lost, 8 minutes; ROUNDS=1"
	@echo "make chaos-bounded  the same with less of everything, under 6 minutes"
	@echo "make chaos-compare  the whole, with Node's bee-queue and asynq beside it; renews docs/chaos.md"
	@echo "make soak         half of full speed and a fault every ten seconds for SOAK (30m)"
	@echo "make house        count how the core's files know each other"
	@echo "make examples     run the examples"
	@echo "make bench        measure beside the peers, 25 minutes; renews docs/performance.*"
	@echo "make bench-quick  the main workloads beside Bee-Queue, under 3 minutes; prints only"

# A time has a race in Go 1.26 that fails a target on a busy machine: "context deadline
# exceeded", with no input written (golang/go#75804). A number of runs, 50000x, has none.
FUZZTIME ?= 30s
ROUNDS ?= 1
SOAK ?= 30m
STEPS ?= 10000
SEEDS ?= 20
TOOL = go tool -modfile=tools/go.mod

test:
	$(TOOL) gotestsum --format pkgname -- ./...

race:
	go test -race -coverprofile=coverage.out -coverpkg=.,./internal/wire,./internal/store ./...
	go tool cover -func=coverage.out | tail -n 1

interop:
	cd interop && go test -race ./...

lint:
	go vet ./...
	cd interop && go vet ./...
	cd bench && go vet ./... && go tool -modfile=../tools/go.mod staticcheck ./...
	cd chaos && go vet ./... && go tool -modfile=../tools/go.mod staticcheck ./...
	$(TOOL) staticcheck ./...
	$(TOOL) golangci-lint run ./...

fuzz:
	@found=; for dir in $$(go list -f '{{.Dir}}' ./...); do \
		for target in $$(grep -hos '^func Fuzz[A-Za-z]*' "$$dir"/*_test.go | cut -c6-); do \
			found=yes; echo "$$target in $$dir"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" || exit 1; \
		done; \
	done; \
	[ -n "$$found" ] || { echo "no fuzz targets found"; exit 1; }

house:
	cd tools && go run ./house ..

examples:
	go run ./examples/push
	go run ./examples/request
	go run ./examples/pingpong

bench: bench/node/node_modules
	cd bench && go run . -out ../docs/performance.json -docs ../docs

bench-quick: bench/node/node_modules
	cd bench && go run . -quick

model:
	go test -race -count=1 -v -parallel 4 -timeout 2h ./test/model -run '^TestStates$$' -steps $(STEPS) -seeds $(SEEDS)

chaos:
	cd chaos && go run . -rounds $(ROUNDS)

chaos-bounded:
	cd chaos && go run . -bounded

chaos-compare: chaos/node/node_modules
	cd chaos && go run . -libraries beequeue,bee-queue,asynq -out ../docs/chaos.md

soak:
	cd chaos && go run . -soak $(SOAK)

# The peers in Node. Without npm, "go run ." in bench/ and chaos/ does without them.
%/node/node_modules: %/node/package-lock.json
	cd $*/node && npm ci
	@touch $@
