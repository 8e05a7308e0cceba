package intake_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkPost is requests with ids of their own, 16 at once, each answered after it was stored.
func BenchmarkPost(b *testing.B) {
	d := newWorld(b).open(nil)
	client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	var n atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			i := int(n.Add(1))
			r, _ := http.NewRequest(http.MethodPost, d.url+"/v1/requests", strings.NewReader(request(fmt.Sprint("bench-", i), i)))
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			began := time.Now()
			a, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, a.Body)
			a.Body.Close()
			if a.StatusCode != http.StatusAccepted {
				b.Errorf("answered %d", a.StatusCode)
				return
			}
			mu.Lock()
			took = append(took, time.Since(began))
			mu.Unlock()
		}
	})
	slices.Sort(took)
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
}

// BenchmarkBatch is batches of 10,000 rows, one after the other.
func BenchmarkBatch(b *testing.B) {
	d := newWorld(b).open(nil)
	for i := range b.N {
		if a := d.postRows(fmt.Sprint("bench-", i), csvRows(i*10_000+1, i*10_000+10_001), "text/csv"); a.status != 202 {
			b.Fatalf("%d %s", a.status, a.body)
		}
	}
}
