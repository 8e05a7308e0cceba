package defender

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// newMetrics registers with reg; a nil reg leaves the metrics to themselves.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unrestrict_api_calls_total",
			Help: "Calls to the Defender API by operation and HTTP status, or a short code where there was no answer.",
		}, []string{"operation", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "unrestrict_api_call_duration_seconds",
			Help:    "How long calls to the Defender API took, the answer's body included.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"operation"}),
	}
	if reg == nil {
		return m, nil
	}
	if err := reg.Register(m.calls); err != nil {
		return nil, err
	}
	return m, reg.Register(m.duration)
}

func (m *metrics) observe(op, code string, took time.Duration) {
	m.calls.WithLabelValues(op, code).Inc()
	m.duration.WithLabelValues(op).Observe(took.Seconds())
}
