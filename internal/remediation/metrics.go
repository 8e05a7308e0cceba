package remediation

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/unrestrict-worker/internal/ledger"
	"example.com/unrestrict-worker/internal/message"
)

// Metrics are the metrics of requests and their outcomes (docs/observability.md).
type Metrics struct {
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	retries     *prometheus.CounterVec
	deadletters *prometheus.CounterVec
	stages      *prometheus.HistogramVec
	followed    prometheus.Gauge
}

// NewMetrics registers the metrics; with a nil registerer they are not collected.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unrestrict_requests_total", Help: "Requests that reached a final result, by outcome.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "unrestrict_request_duration_seconds", Help: "Time from first taken to the final result, by outcome.",
			Buckets: []float64{.05, .25, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 72 * 3600},
		}, []string{"outcome"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unrestrict_retries_total", Help: "Times a request was put off or tried again, by reason.",
		}, []string{"reason"}),
		deadletters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unrestrict_deadletters_total", Help: "Dead letters, by error code; other: one that is none of the known ones.",
		}, []string{"code"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "unrestrict_stage_duration_seconds",
			Help: "Time that a run spent in each stage, observed once a run. queue: published to first delivered; " +
				"quota: waited for the call budget, in hand or nakked; api: its POSTs, from sending to the answer read; " +
				"device: accepted to final on the machine.",
			Buckets: []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 10, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 72 * 3600},
		}, []string{"stage"}),
		followed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "unrestrict_actions_followed", Help: "Machine actions that this replica follows; 0 on all but one.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.duration, m.retries, m.deadletters, m.stages, m.followed)
	}
	for _, outcome := range []string{message.Succeeded, message.Failed, message.TimedOut, message.Cancelled, message.Rejected, message.Abandoned} {
		m.requests.WithLabelValues(outcome)
		m.duration.WithLabelValues(outcome) // starts at 0, so that rate() counts the first
	}
	return m
}

// accepted observes the stages up to the action. It is called once a run, by the process that made the acceptance durable.
func (m *Metrics) accepted(e *ledger.Entry) {
	m.stages.WithLabelValues("queue").Observe(time.Duration(e.Stages.Queue).Seconds())
	if quota, called := e.Stages.WaitedForQuota(time.Now()), e.Attempts > 0; called || quota > 0 {
		m.stages.WithLabelValues("quota").Observe(quota.Seconds())
	}
	if e.Stages.API > 0 {
		m.stages.WithLabelValues("api").Observe(time.Duration(e.Stages.API).Seconds())
	}
}

func (m *Metrics) decided(e *ledger.Entry) {
	if e.ActionID == "" {
		m.accepted(e) // never accepted: those stages end here
	} else if e.Follow {
		m.stages.WithLabelValues("device").Observe(max(e.DecidedAt.Sub(e.AcceptedAt).Seconds(), 0))
	}
	m.requests.WithLabelValues(e.Outcome).Inc()
	m.duration.WithLabelValues(e.Outcome).Observe(max(time.Since(e.ReceivedAt).Seconds(), 0))
	if e.Dead {
		m.deadletters.WithLabelValues(e.Error.Label()).Inc()
	}
}

func (m *Metrics) refused(code string) {
	m.requests.WithLabelValues(message.Rejected).Inc()
	m.deadletters.WithLabelValues(code).Inc()
}

func (m *Metrics) retry(reason string) { m.retries.WithLabelValues(reason).Inc() }
