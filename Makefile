# One command is what CI runs: make test, then make check. "make help" lists the rest.

GO       ?= go
PACKAGES ?= ./...
FUZZTIME ?= 20000x
# A vulnerability database for govulncheck, such as file:///path/to/db; empty: the public one; none: don't look.
VULNDB   ?=

TOOL     := $(GO) tool -modfile=tools/go.mod
LINT     := .bin/golangci-lint-$(shell awk '$$1 == "github.com/golangci/golangci-lint/v2" {print $$2}' tools/golangci-lint.mod)
# What make deploy-test needs besides what is installed.
deploytool = .bin/$(1)-$(shell awk '$$1 == "$(2)" && $$2 ~ /^v/ {print $$2}' tools/deploy.mod)
HELM        := $(call deploytool,helm,helm.sh/helm/v3)
KUBECONFORM := $(call deploytool,kubeconform,github.com/yannh/kubeconform)
NATS_SERVER := $(call deploytool,nats-server,github.com/nats-io/nats-server/v2)
# Helm's templates are not YAML; their output is checked with the chart.
RULES     = $(shell find deploy -path '*/templates' -prune -o \( -name '*rules.y*ml' -o -name '*alerts.y*ml' \) -print 2>/dev/null)
RULETESTS = $(shell find deploy -path '*/templates' -prune -o \( -name '*rules_test.y*ml' -o -name '*alerts_test.y*ml' \) -print 2>/dev/null)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/worker
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags "-s -w" -o bin/worker ./cmd/worker

# The slowest packages come first, so that the others run in parallel. Some mostly
# wait for processes, hence more packages at a time than cores. Not still more,
# because each starts embedded servers of its own, and the race detector needs
# several times the memory. A fake-time test that goes wrong hangs rather than
# fails, hence the time-out.
LONGEST = $(if $(filter ./...,$(PACKAGES)),./internal/remediation ./test/crash ./internal/cli ./internal/defender)

# Tests that take fewer steps with the race detector (test/raced), run once more in full.
UNRACED = TestExplore.*|TestAnyMisfortuneIsSurvived|TestOldBulkGoesAtFullSpeed|TestLooksAreShared|TestAnswersCountInTheOrderTheyArrive|TestHowFast|TestUrgentBesideABulk|TestForecastIsWhatHappens|TestLatestHoldsBesideUrgentOnes

.PHONY: test
test: ## Vet, and run every test with the race detector
	$(GO) vet $(PACKAGES)
	GORACE=atexit_sleep_ms=0 $(GO) test -race -ldflags=-w -p 3 -timeout 30m $(LONGEST) $(PACKAGES)
	$(GO) test -run '^($(UNRACED))$$' ./internal/remediation ./internal/broker/rates

.PHONY: soak
soak: ## Kill replicas a thousand times over 5,000 requests, and run the rest of the crash matrix
	CRASH_REQUESTS=5000 CRASH_KILLS=1000 CRASH_ROUNDS=8 $(GO) test -race -v -count 1 -timeout 3h ./test/crash

.PHONY: check
check: test fmt-check lint tidy-check docs-check licences-check generate-check reproducible fuzz vuln rules workflow ## Everything that CI looks at

.PHONY: fmt
fmt: ## Format
	$(TOOL) gofumpt -w cmd docs internal test

.PHONY: fmt-check
fmt-check:
	@files=$$($(TOOL) gofumpt -l cmd docs internal test); [ -z "$$files" ] || { echo "not formatted (make fmt):"; echo "$$files"; exit 1; }

.PHONY: lint
lint: $(LINT) ## Lint; the rules and their reasons are in .golangci.yml
	$(LINT) run

# It links 200 modules, so it has a module file of its own and is built
# once: some ten minutes on two cores the first time.
$(LINT): tools/golangci-lint.mod tools/golangci-lint.sum
	$(GO) build -modfile=tools/golangci-lint.mod -buildvcs=false -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

.PHONY: tidy-check
tidy-check:
	$(GO) mod tidy -diff

.PHONY: docs-check
docs-check:
	@for module in $$($(GO) list -m -f '{{if not (or .Indirect .Main)}}{{.Path}}{{end}}' all); do \
		grep -qF "\`$$module\`" docs/dependencies.md || { echo "docs/dependencies.md doesn't say why $$module is needed"; exit 1; }; \
	done

.PHONY: licences
licences: ## Write docs/licences.md anew: the licence of each module in the program
	GO="$(GO)" .ci/licences > docs/licences.md

.PHONY: licences-check
licences-check:
	@GO="$(GO)" .ci/licences | diff docs/licences.md - || { echo "docs/licences.md was not up to date (make licences)"; exit 1; }

# From the binary, so that it names what is linked and nothing else.
.PHONY: sbom
sbom: build ## Write bin/worker.cdx.json, a CycloneDX list of the modules in bin/worker
	$(TOOL) cyclonedx-gomod bin -json -output bin/worker.cdx.json bin/worker

.PHONY: reproducible
reproducible: ## Build twice, in two folders with caches of their own, and compare
	@GO="$(GO)" .ci/reproducible

.PHONY: generate
generate: ## Write generated files anew
	$(GO) generate $(PACKAGES)

.PHONY: generate-check
generate-check:
	@state() { { git status --porcelain; git diff; } | sha256sum; }; before=$$(state); $(GO) generate $(PACKAGES) >/dev/null; \
	[ "$$before" = "$$(state)" ] || { echo "generated files were not up to date; they are now:"; git status --short; exit 1; }

.PHONY: fuzz
fuzz: ## Run every fuzz target FUZZTIME
	@grep -rlE '^func Fuzz' --include='*_test.go' cmd internal | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
			echo "$$target in $$(dirname "$$file")"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")" </dev/null || exit 1; \
		done; \
	done

.PHONY: bench
bench: ## Run the benchmarks, and print a table of what the program costs beside a loop written by hand (half an hour)
	$(GO) test -run '^$$' -bench . -benchmem $$($(GO) list $(PACKAGES) | grep -v /test/bench$$)
	$(GO) test -run '^$$' -bench '^BenchmarkTable$$' -benchtime 1x -timeout 2h ./test/bench

.PHONY: vuln
vuln: ## Look for known vulnerabilities that the code reaches
ifeq ($(VULNDB),none)
	@echo "vuln: skipped, there is no database"
else
	$(TOOL) govulncheck $(if $(VULNDB),-db $(VULNDB)) $(PACKAGES)
endif

.PHONY: rules
rules: ## Check and test the alert rules
ifeq ($(RULES),)
	@echo "rules: none in deploy"
else ifeq ($(shell command -v promtool),)
	@echo "rules: skipped, promtool is not installed"
else
	promtool check rules --lint=all --lint-fatal $(RULES)
	$(if $(RULETESTS),promtool test rules $(RULETESTS))
endif

.PHONY: check-nsc
check-nsc: ## Try deploy/nats/nsc.sh: needs nsc
	@dir=$$(mktemp -d) && export XDG_CONFIG_HOME=$$dir XDG_DATA_HOME=$$dir NKEYS_PATH=$$dir/keys NSC_HOME=$$dir && \
	nsc add operator --name test --sys >$$dir/log 2>&1 && sh deploy/nats/nsc.sh $$dir/out >>$$dir/log 2>&1 && \
	NSC_DIR=$$dir/out $(GO) test -count=1 -run '^TestPermissions$$' ./internal/cli; status=$$?; \
	if [ $$status != 0 ]; then cat $$dir/log; fi; rm -rf $$dir; exit $$status

.PHONY: monitoring-test
monitoring-test: ## Ask a real Prometheus for every expression of the alerts and the dashboard
	$(GO) test -tags monitoring -count 1 -v -timeout 20m -run '^TestMonitoringLive$$' ./internal/cli

# Without npm the pictures are made too, but axe-core checks nothing.
AXE_VERSION = 4.14.1
AXE = .bin/axe-core-$(AXE_VERSION)/node_modules/axe-core/axe.min.js
.PHONY: pictures
pictures: ## Look at the status page in Chromium, make docs/pictures anew, and have axe-core find nothing
	@[ -f $(AXE) ] || npm install --silent --no-save --no-package-lock --prefix .bin/axe-core-$(AXE_VERSION) axe-core@$(AXE_VERSION) || echo "pictures: npm could not install axe-core, which is skipped"
	mkdir -p docs/pictures
	PICTURES=$(CURDIR)/docs/pictures AXE=$$([ ! -f $(AXE) ] || echo $(CURDIR)/$(AXE)) $(GO) test -count 1 -v -timeout 10m -run '^TestBrowser$$' ./internal/cli

# The parts are image, chart, compose and systemd; chart and compose need the image.
.PHONY: deploy-test
deploy-test: $(HELM) $(KUBECONFORM) $(NATS_SERVER) ## Run what is in deploy for real; PARTS="image chart" for some of it
	HELM=$(HELM) KUBECONFORM=$(KUBECONFORM) NATS_SERVER=$(NATS_SERVER) bash test/deploy/run.sh $(PARTS)

# Helm takes several minutes the first time.
$(HELM): package = helm.sh/helm/v3/cmd/helm
$(KUBECONFORM): package = github.com/yannh/kubeconform/cmd/kubeconform
$(NATS_SERVER): package = github.com/nats-io/nats-server/v2
$(NATS_SERVER): export CGO_ENABLED = 0
$(HELM) $(KUBECONFORM) $(NATS_SERVER): tools/deploy.mod tools/deploy.sum
	$(GO) build -modfile=tools/deploy.mod -buildvcs=false -o $@ $(package)
	@touch $@

.PHONY: clients
clients: build ## Try other people's clients on worker simulate and on the intake; PARTS="openssl curl node python intake" for some of them
	test/clients/run bin/worker $(PARTS)

.PHONY: images
images: ## Pin the images of others to their digests of today: needs skopeo and their registries
	.ci/images renew

.PHONY: workflow
workflow:
	$(TOOL) actionlint .github/workflows/*.yml
	@! grep -nE 'uses: ' .github/workflows/*.yml | grep -vE 'uses: [A-Za-z0-9._/-]+@[0-9a-f]{40} # v[0-9.]+$$' || { echo "an action is not pinned by its commit"; exit 1; }

.PHONY: release-notes
release-notes: ## Print what CHANGELOG.md says of VERSION
	@awk -v version='$(patsubst v%,%,$(VERSION))' ' \
		/^## / {on = $$2 == "[" version "]"; next} \
		/^\[.*\]: / {next} \
		on {print; if (NF) found = 1} \
		END {if (!found) {print "CHANGELOG.md says nothing of version " version > "/dev/stderr"; exit 1}}' CHANGELOG.md

.PHONY: clean
clean: ## Delete what make built
	rm -rf bin .bin dist
