package admin

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// age says seconds as people do, in its two largest units.
func age(seconds float64) string {
	d := time.Duration(seconds) * time.Second
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%d min %d s", minutes, int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

// text makes foreign text fit for the page: not too long, and with what can't be
// seen spelled out (a right-to-left override would show an id that isn't the id).
func text(s string) string {
	const most = 300
	var out strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > most {
			out.WriteRune('…')
			break
		}
		if unicode.IsPrint(r) {
			out.WriteRune(r)
		} else {
			fmt.Fprintf(&out, "\\u{%x}", r)
		}
	}
	return out.String()
}

func percent(n, of int) string {
	if of <= 0 {
		return "0%"
	}
	return strconv.FormatFloat(100*float64(min(max(n, 0), of))/float64(of), 'f', 2, 64) + "%"
}

// number groups the digits in threes.
func number(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
