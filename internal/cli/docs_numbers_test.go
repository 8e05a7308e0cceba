package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsNumbers: what a page says in numbers that the code has as constants is what they are. Whoever changes a constant finds
// here which sentences say it.
func TestDocsNumbers(t *testing.T) {
	all := pages(t)
	for _, c := range []struct{ file, constant, value, page, says string }{
		{"remediation/decide_answer.go", "maxStale", "3", "docs/runbook.md", "could not leave in time, three times in a row"},
		{"remediation/decide_answer.go", "notFoundTwice", "5 * time.Second", "docs/runbook.md", "asked twice, at least 5 s apart"},
		{"remediation/decide_answer.go", "notFoundTwice", "5 * time.Second", "ARCHITECTURE.md", "final at the second 404, at least 5 s later"},
		{"remediation/decide_answer.go", "holdFor", "3 * time.Second", "ARCHITECTURE.md", "retry for 3 s with the message in hand"},
		{"remediation/ambiguous.go", "longStreak", "3", "docs/runbook.md", "Three calls or look-ups in a row"},
		{"remediation/ambiguous.go", "longStreak", "3", "ARCHITECTURE.md", "three in a row for different machines trip the breaker"},
		{"remediation/guard.go", "guardGood", "15 * time.Second", "docs/policy.md", "a replica begins within 15 s of it"},
		{"remediation/guard.go", "gatherCalls", "20", "docs/policy.md", "until 20 calls are free, a minute at most"},
		{"remediation/track.go", "quotaShare", "0.03", "README.md", "looking up accepted actions takes at most 3 %"},
		{"remediation/track.go", "releaseAfter", "3", "ARCHITECTURE.md", "releases the lease after three failed rounds"},
		{"remediation/decide_approval.go", "approvalSoon", "15 * time.Second", "docs/approvals.md", "looked at again after 15 s"},
		{"remediation/orders.go", "orderFresh", "5 * time.Second", "docs/runbook.md", "holds back what was not called, within 5 s"},
		{"consumer/slots.go", "patience", "5 * time.Second", "ARCHITECTURE.md", "One that had no slot for 5 s is nakked"},
		{"budget/store.go", "StartLimit", "2 * time.Second", "ARCHITECTURE.md", "A grant older than 2 s"},
		{"budget/turns.go", "urgentRun", "9", "docs/lanes.md", "Of ten calls at least one goes to those that are not urgent"},
		{"budget/turns.go", "normalRun", "3", "docs/lanes.md", "share what is left three to one"},
		{"message/request.go", "MaxPayload", "64 << 10", "docs/messages.md", "JSON in UTF-8, at most 64 KiB"},
		{"message/request.go", "MaxPayload", "64 << 10", "docs/runbook.md", "more than 64 KiB, or more than the broker's"},
		{"message/request.go", "maxComment", "4000", "docs/messages.md", "not blank, at most 4,000 characters"},
		{"message/request.go", "maxID", "256", "docs/messages.md", "1 to 256 characters, no control characters"},
		{"message/request.go", "maxMetadata", "8 << 10", "docs/messages.md", "any object, at most 8 KiB as you send it"},
		{"message/request.go", "maxSubject", "1024", "docs/messages.md", "at most 1,024 bytes"},
		{"message/request.go", "MaxSignFor", "7 * 24 * time.Hour", "docs/messages.md", "`expiresAt`, at most 7 days ahead"},
		{"message/request.go", "maxName", "64", "docs/messages.md", "A name has 1 to 64 of the characters"},
		{"message/deadletter.go", "maxDeadMessage", "1000", "docs/messages.md", "on one line of at most 1,000 characters"},
		{"ledger/ledger.go", "Retention", "message.MaxSignFor + time.Hour", "docs/messages.md", "within 7 days of its end"},
		{"ledger/calls.go", "maxCalls", "16", "docs/messages.md", "exchanges with the API, at most 16"},
		{"policy/approvals.go", "maxApprovals", "5", "docs/approvals.md", "how many must approve, 1 to 5"},
		{"policy/approvals.go", "maxApprovers", "50", "docs/approvals.md", "names of trusted signers, 50 at most"},
		{"policy/policyfile.go", "maxPerHour", "1500", "docs/policy.md", "machines_per_hour: 20 # 1 to 1500"},
		{"broker/unverified.go", "mostUnverified", "10_000", "docs/messages.md", "the last 10,000 and at most 32 MiB are kept"},
		{"broker/unverified.go", "mostUnverifiedBytes", "32 << 20", "docs/operations.md", "the last 10,000 results and dead letters, of each at most 32 MiB"},
		{"broker/topology.go", "requestDuplicates", "24 * time.Hour", "docs/operations.md", "new ones refused when full, duplicate window 24 h"},
		{"broker/topology.go", "resultDuplicates", "24 * time.Hour", "docs/operations.md", "30 days, duplicate window 24 h"},
		{"broker/topology.go", "resultMaxAge", "30 * 24 * time.Hour", "docs/operations.md", "**Results**: 30 days"},
		{"broker/topology.go", "controlMaxAge", "400 * 24 * time.Hour", "docs/operations.md", "400 days, deletion and purge denied"},
		{"broker/topology.go", "embeddedMaxStore", "16 << 30", "docs/operations.md", "**The embedded store** as a whole: 16 GiB"},
		{"broker/topology.go", "embeddedRequestBytes", "4 << 30", "docs/operations.md", "The embedded broker takes 4 GiB of them"},
		{"broker/store.go", "nearlyFull", "80", "docs/operations.md", "At 80 % of its 16 GiB"},
		{"broker/store.go", "storeRoom", "8 << 20", "docs/operations.md", "Once 8 MiB are free"},
		{"broker/presence.go", "presenceEvery", "5 * time.Second", "docs/runbook.md", "when one runs, within 5 s"},
		{"broker/replicas.go", "leaseTTL", "8 * time.Second", "ARCHITECTURE.md", "one replica, for 8 s, renewed every 2.5 s"},
		{"broker/replicas.go", "leaseRenew", "keepEvery / 2", "ARCHITECTURE.md", "one replica, for 8 s, renewed every 2.5 s"},
		{"broker/keep.go", "keepEvery", "5 * time.Second", "docs/operations.md", "The worker makes it again within 10 s"},
		{"broker/tally.go", "tallyOver", "24 * time.Hour", "docs/operations.md", "the tally of a day's results"},
		{"intake/batch.go", "batchRows", "10_000", "docs/intake.md", "at most 10,000 rows and 8 MiB"},
		{"intake/batch.go", "batchBytes", "8 << 20", "docs/runbook.md", "of a batch 10,000 rows or 8 MiB"},
		{"intake/requests.go", "maxPrefer", "30 * time.Second", "docs/intake.md", "waits up to 20 seconds (30 at most)"},
		{"intake/clients/file.go", "usualRate", "120", "docs/intake.md", "POST and DELETE a minute, default 120"},
		{"intake/callbacks.go", "callWithin", "20 * time.Second", "docs/intake.md", "A 2xx within 20 s is done"},
		{"intake/callbacks.go", "callAgain", "5 * time.Second", "docs/intake.md", "is tried again after 5 s, doubling to an hour"},
		{"intake/callbacks.go", "callAtMost", "time.Hour", "docs/intake.md", "doubling to an hour, for three days"},
		{"intake/callbacks.go", "callGiveUp", "3 * 24 * time.Hour", "docs/intake.md", "doubling to an hour, for three days"},
		{"defender/bearer.go", "renewBefore", "5 * time.Minute", "docs/runbook.md", "due five minutes before the end"},
		{"service/tracing.go", "flushIn", "2 * time.Second", "docs/observability.md", "the last spans have 2 s"},
		{"cli/submit/submit.go", "signFor", "24 * time.Hour", "docs/commands.md", "expires 24 hours after it was signed"},
	} {
		source, err := os.ReadFile(filepath.Join(repository, "internal", c.file))
		if err != nil {
			t.Fatal(err)
		}
		declared := regexp.MustCompile(`(?m)^\s*(?:const )?` + c.constant + ` += ` + regexp.QuoteMeta(c.value) + `(?: *//.*)?$`)
		if !declared.Match(source) {
			t.Errorf("%s: %s is not %s any more: correct %s, which says %q", c.file, c.constant, c.value, c.page, c.says)
		}
		if text := strings.Join(strings.Fields(all[c.page]), " "); !strings.Contains(text, c.says) {
			t.Errorf("%s does not say %q of %s any more: correct it there, or here", c.page, c.says, c.constant)
		}
	}
}
