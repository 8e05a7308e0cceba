package defendersim

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func BenchmarkUnrestrict(b *testing.B) {
	s := New(Config{AllowUnknownMachines: true, Limits: []Limit{}, CallLog: -1})
	token := s.IssueToken(time.Hour)
	b.ReportAllocs()
	for i := range b.N {
		r := httptest.NewRequest("POST", "/api/machines/"+machineID(i)+"/unrestrictCodeExecution", strings.NewReader(`{"Comment":"release"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+token)
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// BenchmarkListSince is a tracker's call: 20 open actions after 100,000 old ones.
func BenchmarkListSince(b *testing.B) {
	benchmarkList(b, "?$filter=type+eq+'UnrestrictCodeExecution'+and+creationDateTimeUtc+ge+2026-02-01T00:00:00Z&$orderby=creationDateTimeUtc+asc&$top=10000")
}

// BenchmarkListPage is a full page of 10,000.
func BenchmarkListPage(b *testing.B) { benchmarkList(b, "") }

func benchmarkList(b *testing.B, query string) {
	s := New(Config{Limits: []Limit{}, CallLog: -1})
	old := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 100_020 {
		at := old.Add(time.Duration(i) * time.Millisecond)
		if i >= 100_000 {
			at = at.AddDate(0, 2, 0)
		}
		s.Put(Action{MachineID: machineID(i), Comment: "release", Created: at, Status: "Succeeded"})
	}
	token := s.IssueToken(time.Hour)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		r := httptest.NewRequest("GET", "/api/machineactions"+query, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
	}
}
