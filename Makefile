# Everything a contributor runs. `make test` is all a fresh Debian machine with
# Go needs.

GO ?= go

.PHONY: test check race fuzz bench fmt browser screenshots tools-of-browser

test: tools-of-browser
	$(GO) vet ./...
	$(GO) test -timeout 30m ./...
	cd tests/browser && $(GO) vet . && $(GO) test .

# What people and their pages see: Chromium, and OpenFeature's own client.
browser: tools-of-browser
	cd tests/browser && $(GO) test .

# Pictures of the console at 1280 and 390 pixels, light and dark, in ./screenshots.
screenshots: tools-of-browser
	mkdir -p screenshots
	cd tests/browser && SCREENSHOTS=$(CURDIR)/screenshots $(GO) test -count=1 -run '^TestScreenshots$$' .

# Debian's packages, where they are missing, and what package-lock.json names.
APT := $(if $(filter 0,$(shell id -u)),,sudo )DEBIAN_FRONTEND=noninteractive apt-get
tools-of-browser:
	@command -v chromium >/dev/null && command -v npm >/dev/null || { $(APT) update -qq && $(APT) install -y -qq --no-install-recommends chromium npm >/dev/null; }
	@cmp -s tests/browser/package-lock.json tests/browser/node_modules/.installed || \
		{ cd tests/browser && npm ci --no-audit --no-fund --loglevel=error && cp package-lock.json node_modules/.installed; }

# What CI adds to the tests.
check: fmt
	$(GO) mod tidy -diff
	cd tests/browser && $(GO) mod tidy -diff
	$(GO) mod verify >/dev/null
	CGO_ENABLED=0 $(GO) build ./...
	$(GO) tool -modfile=tools.mod staticcheck ./...
	cd tests/browser && $(GO) tool -modfile=../../tools.mod staticcheck ./...

fmt:
	@out=$$($(GO) tool -modfile=tools.mod gofumpt -l .); \
	if [ -n "$$out" ]; then echo "not formatted (go tool -modfile=tools.mod gofumpt -w .):"; echo "$$out"; exit 1; fi

# Without the simulations: they share nothing, and the detector makes them slow.
race:
	$(GO) test -race -timeout 30m -skip '^(TestNeverWithoutCause|TestFoundInFewRequests|TestGuardTraces|TestLatencyFigures|TestScenarios)$$' ./...

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
