package defender

import (
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// newMetrics registers with reg; with a nil reg the metrics are not exported. expires returns when the current token
// expires, zero: unknown.
func newMetrics(reg prometheus.Registerer, expires func() time.Time) (*metrics, error) {
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
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "unrestrict_token_expiry_timestamp_seconds",
		Help: "When the token in hand expires, in seconds since 1970; NaN without a token, or if its end is not known.",
	}, func() float64 {
		if at := expires(); !at.IsZero() {
			return float64(at.Unix())
		}
		return math.NaN() // no comparison with NaN holds, so that no alert fires for an unknown expiry
	})
	for _, c := range []prometheus.Collector{m.calls, m.duration, expiry} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) observe(op, code string, took time.Duration) {
	m.calls.WithLabelValues(op, code).Inc()
	m.duration.WithLabelValues(op).Observe(took.Seconds())
}

// OtherCode is the label of every unknown code.
const OtherCode = "other"

// CodeLabel is an Error's Code as used in a metric's label and in a reason's code: a code that Microsoft documents, an
// HTTP status, or a code of our own. An answer can have any other code, and each would be a time series that is never
// dropped.
func CodeLabel(code string) string {
	switch code {
	case "BadRequest", "ODataError", "InvalidInput", "InvalidRequestBody", "MaximumBatchSizeExceeded", "MissingRequiredParameter",
		"OsPlatformNotSupported", "ClientVersionNotSupported", "Unauthorized", "Forbidden", "DisabledFeature", "DisallowedOperation",
		"NotFound", "ResourceNotFound", "ActiveRequestAlreadyExists", "TooManyRequests", "InternalServerError", // [doc] common-errors.md
		codeRefused, codeDNS, codeTLS, codeProxy, codeTimeout, codeCut, codeConnect, codeCancelled, codeUnreadable, codeNoAction,
		codeToken, codeRedirect, codeNotDefender, codeStale, codeMachineID, codeActionID:
		return code
	}
	if len(code) == len("http404") && code[:4] == "http" {
		if status, err := strconv.Atoi(code[4:]); err == nil && status >= 100 && status <= 599 {
			return code
		}
	}
	return OtherCode
}
