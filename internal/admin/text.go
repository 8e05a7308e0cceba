package admin

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Clock formats a time for people, with its zone, because pasted output may be read in another zone.
func Clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05Z07:00") }

// Roughly is a duration in its two largest units.
func Roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return "under 1s"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
	case d < 24*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	d = d.Round(time.Hour)
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// text makes text from outside fit for the page: not too long, and Printable.
func text(s string) string {
	const most = 300
	n := 0
	for i := range s {
		if n++; n > most {
			return Printable(s[:i]) + "…"
		}
	}
	return Printable(s)
}

// span is a piece of prose: what stood between backticks is code.
type span struct {
	Text string
	Code bool
}

func prose(s string) (spans []span) {
	for i, piece := range strings.Split(s, "`") {
		if piece != "" {
			spans = append(spans, span{piece, i%2 == 1})
		}
	}
	return spans
}

// Printable spells out characters that can't be seen, or that change what is seen around them: control and format
// characters (a right-to-left override shows an id that isn't the id, a zero-width space makes two of one), spaces other
// than the ordinary one, and characters that draw nothing. All text from outside that people read goes through it.
func Printable(s string) string {
	var out strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
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
