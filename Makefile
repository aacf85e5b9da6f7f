# Everything a contributor runs. `make test` is all a fresh Debian machine with
# Go needs.

GO ?= go

.PHONY: test check race fuzz bench fmt

test:
	$(GO) vet ./...
	$(GO) test ./...

# What CI adds to the tests.
check: fmt
	$(GO) mod tidy -diff
	$(GO) mod verify >/dev/null
	CGO_ENABLED=0 $(GO) build ./...
	$(GO) tool -modfile=tools.mod staticcheck ./...

fmt:
	@out=$$($(GO) tool -modfile=tools.mod gofumpt -l .); \
	if [ -n "$$out" ]; then echo "not formatted (go tool -modfile=tools.mod gofumpt -w .):"; echo "$$out"; exit 1; fi

# Without the simulations: they share nothing, and the detector makes them slow.
race:
	$(GO) test -race -skip '^(TestNeverWithoutCause|TestFoundInFewRequests|TestGuardTraces|TestLatencyFigures|TestScenarios)$$' ./...

# A short run of every fuzz target; FUZZTIME=10m for a long one. A number of
# inputs rather than a time: at the end of a time go test now and then fails with
# "context deadline exceeded".
FUZZTIME ?= 50000x
fuzz:
	@set -e; for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p; \
		done; \
	done

bench:
	$(GO) test -run '^$$' -bench . ./evaluator ./monitors ./state ./caddymodule/...
