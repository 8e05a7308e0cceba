package intake_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/message"
)

// batchAnswer is an answer about a batch.
type batchAnswer struct {
	Name        string
	Rows        int
	Outcomes    map[string]int
	Failures    []struct{ ID, Outcome string }
	Row, Stored int
}

func (a answer) batch(t testing.TB) (b batchAnswer) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &b); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return b
}

func csvRows(from, to int) string {
	var b strings.Builder
	b.WriteString("machineId,comment\n")
	for n := from; n < to; n++ {
		fmt.Fprintf(&b, "%s,c\n", machine(n))
	}
	return b.String()
}

func (d *door) postRows(name, body, kind string) answer {
	d.t.Helper()
	return d.ask("POST", "/v1/batches/"+name, body, "Content-Type", kind)
}

// TestBatch: the last row first, each once however often it is sent; other rows under the name are refused, and another client's
// batch of the name is another one.
func TestBatch(t *testing.T) {
	d := newWorld(t).open(nil)
	a := d.postRows("monday", csvRows(1, 4), "text/csv")
	if b := a.batch(t); a.status != 202 || a.header.Get("Location") != "/v1/batches/monday" || b.Rows != 3 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var ids []string
	for _, m := range d.stored() {
		var r struct{ ID, Batch string }
		_ = json.Unmarshal(m.Data, &r)
		ids = append(ids, r.ID+" "+r.Batch+" "+m.Subject)
	}
	want := []string{"monday:4 monday remediation.unrestrict.bulk", "monday:2 monday remediation.unrestrict.bulk", "monday:3 monday remediation.unrestrict.bulk"}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
	other := d.open(nil)
	for what, c := range map[string]struct {
		rows   string
		status int
	}{
		"the same": {csvRows(1, 4), 202}, "a row more": {csvRows(1, 5), 422}, "a row less": {csvRows(1, 3), 422}, "another machine": {csvRows(2, 5), 422},
	} {
		a := other.postRows("monday", c.rows, "text/csv")
		if a.status != c.status || c.status == 422 && a.Code != "idConflict" || len(d.stored()) != 3 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	if a := d.ask("GET", "/v1/requests/monday:2", ""); a.status != 202 {
		t.Errorf("a row is a request: %d %s", a.status, a.body)
	}
	desk := d.desk()
	if a := desk.ask("GET", "/v1/batches/monday", ""); a.status != 404 || a.Code != "unknownBatch" {
		t.Errorf("another client's: %d %s", a.status, a.body)
	}
	if a := desk.postRows("monday?lane=normal", csvRows(7, 8), "text/csv"); a.status != 202 || a.batch(t).Rows != 1 {
		t.Errorf("another client's of that name: %d %s", a.status, a.body)
	}
	if a := d.ask("DELETE", "/v1/batches/none", ""); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := d.ask("DELETE", "/v1/batches/monday", ""); a.status != 202 || a.batch(t).Rows != 3 {
		t.Errorf("%d %s", a.status, a.body)
	}
	d.work()
	d.eventually("the end of desk's", func() bool { return desk.ask("GET", "/v1/batches/monday", "").batch(t).Outcomes["succeeded"] == 1 })
	d.eventually("that soar's are cancelled", func() bool { return d.ask("GET", "/v1/batches/monday", "").batch(t).Outcomes["cancelled"] == 3 })
}

// TestBatchHalfStored: what a broker that fell silent has of a batch is not stored again, and the rest is.
func TestBatchHalfStored(t *testing.T) {
	d := newWorld(t).open(nil)
	full := csvRows(1, 6)
	for _, line := range []int{6, 2} { // the last row, and the first
		row := fmt.Sprintf(`{"machineId":%q,"comment":"c","id":"tuesday:%d","batch":"tuesday"}`, machine(line-1), line)
		if _, err := d.broker.Publish(t.Context(), message.LaneBulk, message.Header{message.HeaderClient: {"soar"}}, []byte(row)); err != nil {
			t.Fatal(err)
		}
	}
	if a := d.postRows("tuesday", csvRows(1, 7), "text/csv"); a.Code != "idConflict" {
		t.Errorf("other rows: %d %s", a.status, a.body)
	}
	d.wire.set(false, true)
	if a := d.postRows("tuesday", full, "text/csv"); a.status != 503 || a.Code != "notQueued" {
		t.Errorf("no connection: %d %s", a.status, a.body)
	}
	d.wire.set(false, false)
	d.eventually("that it is ready", func() bool { return d.ask("GET", "/readyz", "").status == 200 })
	if a := d.postRows("tuesday", full, "text/csv"); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if n := len(d.stored()); n != 5 {
		t.Errorf("%d messages for 5 rows", n)
	}
}

// TestBatchWithoutAnAnswer: the broker falls silent amid the rows. It is said that nobody knows, and the same again queues no row twice.
func TestBatchWithoutAnAnswer(t *testing.T) {
	d := newWorld(t).open(nil)
	rows := csvRows(1, 6)
	d.wire.muteFrom(`"id":"silent:3"`)
	a := d.postRows("silent", rows, "text/csv")
	if a.status != 503 || a.Code != "unknown" || !strings.Contains(a.body, `"stored":`) || a.batch(t).Stored > 5 {
		t.Errorf("%d %s", a.status, a.body)
	}
	d.wire.set(false, false)
	d.eventually("that it is taken", func() bool { return d.postRows("silent", rows, "text/csv").status == 202 })
	ids := map[string]bool{}
	for _, m := range d.stored() {
		var r struct{ ID string }
		_ = json.Unmarshal(m.Data, &r)
		ids[r.ID] = true
	}
	if n := len(d.stored()); n != 5 || len(ids) != 5 {
		t.Errorf("%d messages with %d ids for 5 rows", n, len(ids))
	}
}

func TestBatchesThatAreNotTaken(t *testing.T) {
	d := newWorld(t).open(nil)
	row := func(n int) string { return `{"machineId":"` + machine(n) + `","comment":"c"}` + "\n" }
	for name, c := range map[string]struct {
		path, rows, kind, code string
		row, status            int
	}{
		"a bad machine":   {"b", csvRows(1, 3) + "x,c\n", "text/csv", "malformed", 4, 400},
		"a bad line":      {"b", row(1) + "\n{\n", "application/jsonl", "malformed", 3, 400},
		"an id twice":     {"b", `{"id":"b:2",` + row(1)[1:] + row(2), "application/x-ndjson", "malformed", 2, 400},
		"expired":         {"b", row(1) + strings.Replace(row(2), "{", `{"expiresAt":"2020-01-01T00:00:00Z",`, 1), "application/jsonl", "expired", 2, 422},
		"another batch":   {"b", strings.Replace(row(1), "{", `{"batch":"a",`, 1), "application/jsonl", "malformed", 1, 400},
		"nothing":         {"b", "\n", "application/jsonl", "malformed", 0, 400},
		"a form":          {"b", row(1), "application/x-www-form-urlencoded", "mediaType", 0, 415},
		"too many":        {"b", strings.Repeat(row(1), 1) + strings.Repeat("\n", 5) + jsonRows(10_000), "application/jsonl", "tooLarge", 0, 413},
		"too large":       {"b", strings.Repeat("x", 8<<20+1), "text/csv", "tooLarge", 0, 413},
		"a stream's name": {"REMEDIATION", row(1), "application/jsonl", "malformed", 0, 400},
		"no name":         {"a.b", row(1), "application/jsonl", "malformed", 0, 400},
		"no lane":         {"b?lane=express", row(1), "application/jsonl", "malformed", 0, 400},
	} {
		a := d.postRows(c.path, c.rows, c.kind)
		if b := a.batch(t); a.status != c.status || a.Code != c.code || b.Row != c.row {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := d.desk().postRows("b", row(1), "application/jsonl"); a.status != 403 || a.Code != "forbidden" {
		t.Errorf("a client without bulk: %d %s", a.status, a.body)
	}
	if n := len(d.stored()); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
}

// jsonRows are so many rows as JSON lines.
func jsonRows(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"machineId":%q,"comment":"c"}`+"\n", machine(i+2))
	}
	return b.String()
}
