package service

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/message"
)

// gauges are the metrics of docs/observability.md that no package owns.
func (s *Service) gauges() []prometheus.Collector {
	pending := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "unrestrict_queue_pending", Help: "Requests in the stream that no replica has in hand; -1 while the broker does not answer.",
	}, func() float64 {
		b, p, _ := s.current()
		if b == nil || p == nil {
			return -1
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, n, err := b.Pending(ctx)
		if err != nil {
			return -1
		}
		return float64(max(n-p.Consumer.InFlight(), 0))
	})
	notKept := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "unrestrict_deadletters_not_kept_total", Help: "Dead letters of unverified messages which were deleted, or not written, because there are too many.",
	}, func() float64 {
		if _, p, _ := s.current(); p != nil {
			return float64(p.notKept())
		}
		return 0
	})
	all := []prometheus.Collector{pending, notKept, BuildInfo(), conditionCollector{s}, waitCollector{s}}
	for _, l := range message.Lanes() {
		all = append(all, s.lanePending(l))
	}
	return all
}

// ForTenant registers metrics with the label tenant, if there is one.
func ForTenant(tenant string, r prometheus.Registerer) prometheus.Registerer {
	if tenant == "" {
		return r
	}
	return prometheus.WrapRegistererWith(prometheus.Labels{"tenant": tenant}, r)
}

// BuildInfo is unrestrict_build_info of this program.
func BuildInfo() prometheus.Collector {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "unrestrict_build_info", Help: "1, labelled with the version.",
	}, []string{"version"})
	build.WithLabelValues(ThisBuild().Version).Set(1)
	return build
}

// lanePending is unrestrict_lane_pending of one lane.
func (s *Service) lanePending(l message.Lane) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "unrestrict_lane_pending", Help: "Requests of the lane that are not called yet, in hand or not; -1 while the broker does not answer.",
		ConstLabels: prometheus.Labels{"lane": string(l)},
	}, func() float64 {
		b, _, _ := s.current()
		if b == nil {
			return -1
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n, err := b.PendingIn(ctx, l)
		if err != nil {
			return -1
		}
		return float64(n)
	})
}

// conditionCollector is unrestrict_condition{code} and unrestrict_paused{reason}, of this replica.
type conditionCollector struct{ s *Service }

var (
	pausedDesc    = prometheus.NewDesc("unrestrict_paused", "1 for each reason why this replica takes no requests.", []string{"reason"}, nil)
	conditionDesc = prometheus.NewDesc("unrestrict_condition",
		"For each condition of this replica that holds requests or actions up: 2 where it takes no requests because of it, else 1.", []string{"code"}, nil)
)

// Describe is called by the registry.
func (c conditionCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- pausedDesc
	ch <- conditionDesc
}

// Collect is called by the registry.
func (c conditionCollector) Collect(ch chan<- prometheus.Metric) {
	paused, conditions := map[string]float64{health.Paused: 0}, map[string]float64{health.Paused: 0}
	for _, h := range c.s.Conditions() {
		conditions[h.Code] = max(conditions[h.Code], 1)
		if h.Stops {
			paused[h.Code], conditions[h.Code] = 1, 2
		}
	}
	for code, on := range paused {
		ch <- prometheus.MustNewConstMetric(pausedDesc, prometheus.GaugeValue, on, code)
	}
	for code, value := range conditions {
		ch <- prometheus.MustNewConstMetric(conditionDesc, prometheus.GaugeValue, value, code)
	}
}

// waitCollector is unrestrict_queue_expected_wait_seconds{lane}.
type waitCollector struct{ s *Service }

var waitDesc = prometheus.NewDesc("unrestrict_queue_expected_wait_seconds",
	"How long a request that is published now is expected to wait for its call, by lane; absent while that is not known.", []string{"lane"}, nil)

// Describe is called by the registry.
func (c waitCollector) Describe(ch chan<- *prometheus.Desc) { ch <- waitDesc }

// Collect is called by the registry.
func (c waitCollector) Collect(ch chan<- prometheus.Metric) {
	b, p, _ := c.s.current()
	if b == nil || p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	line, err := c.s.lines.Look(ctx, b, c.s.Settings)
	if err != nil {
		return
	}
	for _, l := range message.Lanes() {
		next := line.Next(l)
		if wait := next.ExpectedAt.Sub(line.AsOf()); next.Unavailable == "" {
			ch <- prometheus.MustNewConstMetric(waitDesc, prometheus.GaugeValue, max(wait, 0).Seconds(), string(l))
		} else if next.Unavailable == WaitNoLimit {
			ch <- prometheus.MustNewConstMetric(waitDesc, prometheus.GaugeValue, 0, string(l))
		}
	}
}
