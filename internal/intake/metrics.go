package intake

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/service"
)

type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	unstored *prometheus.CounterVec
	calls    *prometheus.CounterVec
	waiting  *prometheus.GaugeVec
}

// newMetrics labels all metrics with the tenant, if there is one.
func newMetrics(tenant string, conditions func() readiness) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unrestrict_intake_requests_total", Help: "HTTP requests to the intake, by client (empty: not signed in) and status.",
		}, []string{"client", "code"}),
		unstored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unrestrict_intake_not_stored_total", Help: "Requests, batches and orders that were answered with 503, by code: notQueued, or unknown where the broker may have stored some of it.",
		}, []string{"code"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unrestrict_intake_callbacks_total", Help: "Posts of results to callbacks, by client, callback and status (error: no answer; givenUp).",
		}, []string{"client", "name", "code"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unrestrict_intake_callback_waiting", Help: "Results of all clients that were not looked at for this callback yet.",
		}, []string{"client", "name"}),
	}
	for _, code := range []string{codeNotQueued, codeUnknown} {
		m.unstored.WithLabelValues(code) // so that the first one is an increase
	}
	service.ForTenant(tenant, m.registry).MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.unstored, m.calls, m.waiting, service.BuildInfo(), conditionCollector(conditions))
	return m
}

// conditionCollector is unrestrict_intake_condition{code}.
type conditionCollector func() readiness

var conditionDesc = prometheus.NewDesc("unrestrict_intake_condition",
	"For each condition of this intake: 2 where it is not ready because of it, else 1.", []string{"code"}, nil)

// Describe is called by the registry.
func (c conditionCollector) Describe(ch chan<- *prometheus.Desc) { ch <- conditionDesc }

// Collect is called by the registry. The series of the broker's condition always exists, which shows that the intake
// does.
func (c conditionCollector) Collect(ch chan<- prometheus.Metric) {
	values, now := map[string]float64{health.Broker: 0}, c()
	for _, d := range now.Details {
		values[d.Code] = 1
	}
	for _, r := range now.Reasons {
		values[r.Code] = 2
	}
	for code, value := range values {
		ch <- prometheus.MustNewConstMetric(conditionDesc, prometheus.GaugeValue, value, code)
	}
}

func (m *metrics) answered(client string, status int) {
	m.requests.WithLabelValues(client, strconv.Itoa(status)).Inc()
}

// failed counts a request that was not stored.
func (m *metrics) failed(p *problem) {
	if p.Code == codeNotQueued || p.Code == codeUnknown {
		m.unstored.WithLabelValues(p.Code).Inc()
	}
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
