package defender

import (
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// requestsAgain is in the API's message: "You can send requests again in 8 seconds."
var requestsAgain = regexp.MustCompile(`(?i)\bin (\d+) seconds?\b`)

// retryAfter is how long an answer asks to wait: the header in seconds or as a date, which is held against
// the answer's own Date (own clock without one), else the seconds named in the message. 0 = it does not say.
// However long, the value is kept; what no Duration can hold becomes the longest there is.
func retryAfter(h http.Header, message string, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if d, ok := seconds(value); ok && d > 0 {
		return d
	}
	if at, err := http.ParseTime(value); err == nil {
		if sent, err := http.ParseTime(h.Get("Date")); err == nil {
			now = sent
		}
		if d := at.Sub(now); d > 0 {
			return d
		}
	}
	if m := requestsAgain.FindStringSubmatch(message); m != nil {
		d, _ := seconds(m[1])
		return d
	}
	return 0
}

func seconds(digits string) (time.Duration, bool) {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/int64(time.Second) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * time.Second, true
}
