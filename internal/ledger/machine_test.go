package ledger

import (
	"bytes"
	"testing"
)

// The revision is the broker's and not part of the value: read from there it would be that of the write before, so that no
// later write could succeed.
func TestMachineHasTheBrokersRevision(t *testing.T) {
	m := Machine{Revision: 7}
	w, err := m.Write("REMEDIATION", "0000000000000000000000000000000000000001", "e.a.b")
	if err != nil {
		t.Fatal(err)
	}
	if w.Revision != 7 || bytes.Contains(bytes.ToLower(w.Value), []byte("revision")) {
		t.Errorf("over revision %d is written %s", w.Revision, w.Value)
	}
}
