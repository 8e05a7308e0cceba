package intake_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/message"
)

// follower reads GET /v1/results.
type follower struct {
	t     testing.TB
	lines *bufio.Scanner
	end   func()
}

func (d *door) follow(query string, headers ...string) *follower {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.t.Context()))
	_, got := d.send(ctx, http.MethodGet, "/v1/results"+query, "", headers)
	d.t.Cleanup(func() { cancel(); got.Body.Close() })
	if got.StatusCode != 200 {
		d.t.Fatalf("%d", got.StatusCode)
	}
	return &follower{d.t, bufio.NewScanner(got.Body), cancel}
}

// finals reads the next n final results: their requests, and the id of the last event.
func (f *follower) finals(n int) (ids []string, last string) {
	f.t.Helper()
	for len(ids) < n && f.lines.Scan() {
		line := f.lines.Text()
		event := struct {
			EventID string
			Result  message.Result
		}{EventID: last}
		switch name, value, _ := strings.Cut(line, ": "); name {
		case "id":
			last = value
			continue
		case "data":
			_ = json.Unmarshal([]byte(value), &event.Result)
		default:
			if json.Unmarshal([]byte(line), &event) != nil {
				continue
			}
		}
		if last = event.EventID; event.Result.Final {
			ids = append(ids, event.Result.RequestID)
		}
	}
	if len(ids) < n {
		f.t.Fatalf("it ended after %q: %v", ids, f.lines.Err())
	}
	return ids, last
}

// TestResultsAsTheyCome: in both forms, to several at once, each client its own; resumed without gap or repetition.
func TestResultsAsTheyCome(t *testing.T) {
	d := newWorld(t).open(nil)
	d.work()
	send := func(as *door, from, to int) {
		for n := from; n < to; n++ {
			if a := as.post(request(fmt.Sprint("r", n), n), "Prefer", "wait=30"); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
	}
	events, lines := d.follow("", "Accept", "text/event-stream"), d.follow("")
	send(d.desk(), 90, 91)
	send(d, 1, 4)
	want := []string{"r1", "r2", "r3"}
	ids, last := events.finals(3)
	more, same := lines.finals(3)
	if diff := cmp.Diff(want, ids) + cmp.Diff(want, more) + cmp.Diff(last, same); diff != "" {
		t.Error(diff)
	}
	events.end()
	send(d, 4, 6)
	for _, f := range []*follower{d.follow("", "Accept", "text/event-stream", "Last-Event-ID", last), d.follow("?after=" + last), lines} {
		if ids, _ := f.finals(2); !cmp.Equal(ids, []string{"r4", "r5"}) {
			t.Errorf("resumed: %q", ids)
		}
	}
	if ids, _ := d.follow("?since=1h").finals(5); !cmp.Equal(ids, []string{"r1", "r2", "r3", "r4", "r5"}) {
		t.Errorf("since an hour ago: %q", ids)
	}
	if ids, _ := d.desk().follow("?since=2026-01-01T00:00:00Z").finals(1); !cmp.Equal(ids, []string{"r90"}) {
		t.Errorf("another client's: %q", ids)
	}
	for _, bad := range []string{"?since=soon", "?after=x", "?after=-1"} {
		if a := d.ask("GET", "/v1/results"+bad, ""); a.status != 400 || a.Code != "malformed" {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
	d.stop()
	for lines.lines.Scan() { // it ends with the intake
	}
}

// TestAReaderThatFallsBehind gets every result in its order, though more came meanwhile than are kept for readers.
func TestAReaderThatFallsBehind(t *testing.T) {
	d := newWorld(t).open(nil)
	const many = 8000 // of 4 KiB: more than the sockets hold, too
	slow := d.follow("")
	js, subject := d.broker.JS(), d.broker.Names().ResultsSubject
	for n := range many {
		body := fmt.Sprintf(`{"requestId":"r%d","client":"soar","final":true,"comment":%q}`, n, strings.Repeat("c", 4<<10))
		if _, err := js.PublishAsync(subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
		if n%500 == 499 {
			<-js.PublishAsyncComplete()
		}
	}
	for n := range many {
		if ids, _ := slow.finals(1); ids[0] != fmt.Sprint("r", n) {
			t.Fatalf("%s is in the place of r%d", ids[0], n)
		}
	}
}
