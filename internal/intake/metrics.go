package intake

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"example.com/unrestrict-worker/internal/service"
)

type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	calls    *prometheus.CounterVec
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "unrestrict_intake_requests_total", Help: "HTTP requests to the intake, by client (empty: nobody who is known) and status.",
	}, []string{"client", "code"}), prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "unrestrict_intake_callbacks_total", Help: "Posts of results to callbacks, by client, callback and status (error: no answer; givenUp).",
	}, []string{"client", "name", "code"})}
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.requests, m.calls, service.BuildInfo())
	return m
}

func (m *metrics) answered(client string, status int) {
	m.requests.WithLabelValues(client, strconv.Itoa(status)).Inc()
}

func (m *metrics) called(client, callback, code string) {
	m.calls.WithLabelValues(client, callback, code).Inc()
}

// recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader is called once for each answer.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write may be called without WriteHeader.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
