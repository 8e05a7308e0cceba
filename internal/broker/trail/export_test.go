package trail

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// exportOf is what `worker audit export` writes of a trail, line by line.
func exportOf(t *testing.T, all []Message) (lines [][]byte) {
	t.Helper()
	for _, s := range all {
		line, err := Export(s)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// verifyLines is `worker audit verify --file`.
func verifyLines(lines [][]byte, kept Kept) error {
	var c *Chain
	last := uint64(0)
	for _, line := range lines {
		m, err := Import(line)
		if err != nil {
			return err
		}
		if c == nil {
			c = NewChain(m.Sequence, kept, func(uint64) ([]byte, error) { return nil, nil })
		}
		if err := c.Add(m); err != nil {
			return err
		}
		last = m.Sequence
	}
	return c.End(last)
}

// TestAuditExportIsWhatWasWritten: a line in which something stands twice, or differs in a byte from what export writes, is
// a break, whatever the record in it says.
func TestAuditExportIsWhatWasWritten(t *testing.T) {
	lines := exportOf(t, twoWriters(t))
	if err := verifyLines(lines, Kept{}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(line string) string{
		"record twice": func(l string) string { return l[:len(l)-2] + `,"record":{"kind":"forged"}}` + "\n" },
		"record and Record": func(l string) string {
			return strings.Replace(l, `"record":`, `"Record":{"kind":"forged"},"record":`, 1)
		},
		"record and RECORD": func(l string) string {
			return l[:len(l)-2] + `,"RECORD":` + l[strings.Index(l, `{"v"`):len(l)-2] + "}\n"
		},
		"sequence twice": func(l string) string { return strings.Replace(l, `{"sequence"`, `{"Sequence":9,"sequence"`, 1) },
		"storedAt twice": func(l string) string { return l[:len(l)-2] + `,"storedat":"2020-01-01T00:00:00Z"}` + "\n" },
		"another member": func(l string) string { return l[:len(l)-2] + `,"note":"x"}` + "\n" },
		"another order": func(l string) string {
			i := strings.Index(l, `,"record"`)
			return "{" + l[i+1:len(l)-2] + "," + l[1:i] + "}\n"
		},
		"a blank":              func(l string) string { return strings.Replace(l, `,"record"`, `, "record"`, 1) },
		"no line end":          func(l string) string { return strings.TrimSpace(l) },
		"a carriage return":    func(l string) string { return strings.TrimSpace(l) + "\r\n" },
		"another spelling":     func(l string) string { return strings.Replace(l, `"storedAt"`, `"stored\u0041t"`, 1) },
		"member in the record": func(l string) string { return strings.Replace(l, `"kind":"`, `"Kind":"forged","kind":"`, 1) },
	} {
		for i := range lines {
			changed := slices.Clone(lines)
			changed[i] = []byte(change(string(lines[i])))
			if bytes.Equal(changed[i], lines[i]) {
				t.Fatalf("%s changes nothing", name)
			}
			if _, broken := errors.AsType[*Break](verifyLines(changed, Kept{})); !broken {
				t.Errorf("%s in line %d is not found: %s", name, i+1, changed[i])
			}
		}
	}
}

// TestAuditRecordWithAMemberTwice: who can compute the sum of a last record can't have it read in two ways.
func TestAuditRecordWithAMemberTwice(t *testing.T) {
	all := twoWriters(t)
	for _, more := range []string{`"outcome":"failed","outcome"`, `"Outcome":"failed","outcome"`, `"error":{"code":"a","Code":"b"},"outcome"`, `"x":[{"a":1,"a":2}],"outcome"`} {
		changed := forged(all, 7, `"outcome"`, more)
		_, err := verify(changed, 8)
		if found, broken := errors.AsType[*Break](err); !broken || found.Sequence != 8 || !strings.Contains(found.What, "twice") {
			t.Errorf("%s: %v", changed[7].Data, err)
		}
	}
}

// TestAuditExportWithHeads: with what an earlier verification found, an export is what there was, byte for byte, from its
// first line on; the time of storing is covered by that alone.
func TestAuditExportWithHeads(t *testing.T) {
	all := twoWriters(t)
	whole, err := verify(all[:6], 6)
	if err != nil {
		t.Fatal(err)
	}
	kept, lines := whole.Found(), exportOf(t, all)
	sum := sha256.Sum256(bytes.Join(lines[:6], nil))
	if kept.First != 1 || kept.Last != 6 || kept.ExportSHA256 != hex.EncodeToString(sum[:]) {
		t.Fatalf("%+v", kept)
	}
	if err := verifyLines(lines, kept); err != nil {
		t.Errorf("the same and more: %v", err)
	}
	part := slices.Clone(lines[2:])
	if err := verifyLines(part, Kept{}); err != nil {
		t.Errorf("a part: %v", err)
	}
	later := lines[2]
	for name, c := range map[string]struct {
		lines [][]byte
		at    uint64
	}{
		"cut at its front":       {part, 1},
		"cut at its end":         {lines[:5], 6},
		"stored at another time": {slices.Replace(slices.Clone(lines), 2, 3, bytes.Replace(later, []byte(`"storedAt":"20`), []byte(`"storedAt":"19`), 1)), 6},
	} {
		err := verifyLines(c.lines, kept)
		if found, broken := errors.AsType[*Break](err); !broken || found.Sequence != c.at {
			t.Errorf("%s: %v", name, err)
		}
	}
	old := Kept{First: kept.First, Last: kept.Last, Heads: kept.Heads} // as the version before wrote them
	if err := verifyLines(lines, old); err != nil {
		t.Errorf("heads without a digest: %v", err)
	}
	if verifyLines(part, old) == nil {
		t.Error("heads without a digest: the front is not missed")
	}
}

// TestAuditExport: what is exported is read back byte for byte, whatever it is.
func TestAuditExport(t *testing.T) {
	at := time.Date(2026, 11, 26, 18, 0, 0, 5, time.UTC)
	for payload, want := range map[string]string{
		`{"a": "<&>ü\u003c",  "n":1.50}`: `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","record":{"a": "<&>ü\u003c",  "n":1.50}}` + "\n",
		"{\n}":                           `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","data":"ewp9"}` + "\n",
		` {}`:                            `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","data":"IHt9"}` + "\n",
		"no JSON":                        `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","data":"bm8gSlNPTg=="}` + "\n",
		"null":                           `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z","record":null}` + "\n",
		"":                               `{"sequence":7,"storedAt":"2026-11-26T18:00:00.000000005Z"}` + "\n",
	} {
		line, err := Export(Message{Sequence: 7, Time: at, Data: []byte(payload)})
		if err != nil || string(line) != want {
			t.Errorf("%v %s, want %s", err, line, want)
		}
		back, err := Import(line)
		if err != nil || back.Sequence != 7 || string(back.Data) != payload || !back.Time.Equal(at) {
			t.Errorf("%q came back as %+v, %v", payload, back, err)
		}
	}
	for _, line := range []string{"", "{}", "[]", `{"sequence":0}`} {
		if _, err := Import([]byte(line)); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}
