package defender

import (
	"math"
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for name, c := range map[string]struct {
		header, date, message string
		want                  time.Duration
	}{
		"nothing":                    {},
		"seconds":                    {header: "30", want: 30 * time.Second},
		"seconds with blanks":        {header: " 30 ", want: 30 * time.Second},
		"header before message":      {header: "30", message: "again in 8 seconds", want: 30 * time.Second},
		"hours":                      {header: "86400", want: 24 * time.Hour},
		"too many for a duration":    {header: "9300000000", want: math.MaxInt64},
		"too many for an integer":    {header: "99999999999999999999999", want: math.MaxInt64},
		"negative":                   {header: "-5"},
		"zero":                       {header: "0", message: "again in 8 seconds.", want: 8 * time.Second},
		"a date by our clock":        {header: date(90 * time.Second), want: 90 * time.Second},
		"a date by the answer's":     {header: date(time.Hour), date: date(time.Hour - 20*time.Second), want: 20 * time.Second},
		"a date and an odd Date":     {header: date(time.Minute), date: "yesterday", want: time.Minute},
		"a date in the past":         {header: date(-time.Hour)},
		"RFC 850":                    {header: now.Add(time.Minute).Format("Monday, 02-Jan-06 15:04:05 GMT"), want: time.Minute},
		"a date in the year 9999":    {header: "Fri, 31 Dec 9999 23:59:59 GMT", want: math.MaxInt64},
		"not a number":               {header: "soon", message: "You can send requests again in 8 seconds.", want: 8 * time.Second},
		"message":                    {message: "API calls quota exceeded! Maximum allowed 30 per 00:01:00 for the key. You can send requests again in 8 seconds.", want: 8 * time.Second},
		"message, one second":        {message: "Try again IN 1 SECOND", want: time.Second},
		"message, many":              {message: "in 99999999999999999999 seconds", want: math.MaxInt64},
		"message without":            {message: "API calls quota exceeded! maximum allowed 1500 per 01:00:00"},
		"message with another thing": {message: "within 5 secondsish in 5 minutes"},
	} {
		h := http.Header{}
		if c.header != "" {
			h.Set("Retry-After", c.header)
		}
		if c.date != "" {
			h.Set("Date", c.date)
		}
		if got := retryAfter(h, c.message, now); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestRetryAfterOfTheMessageIsFor429Alone(t *testing.T) {
	env := &Envelope{Code: "429", Message: "You can send requests again in 8 seconds."}
	for status, want := range map[int]time.Duration{429: 8 * time.Second, 503: 0} {
		if e := Classify(Answer{Op: opUnrestrict, StatusCode: status, Envelope: env}); e.RetryAfter != want {
			t.Errorf("%d: got %s, want %s", status, e.RetryAfter, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "-1", "+5", "30", "1e9", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"} {
		f.Add(s, s, "in "+s+" seconds")
	}
	f.Fuzz(func(t *testing.T, value, date, message string) {
		if d := retryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, message, time.Now()); d < 0 {
			t.Fatalf("negative: %s", d)
		}
	})
}
