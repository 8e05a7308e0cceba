package demo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestReceiverVerifies: nothing but what the client's secret has signed, just now, is taken.
func TestReceiverVerifies(t *testing.T) {
	o := &overHTTP{secret: []byte("secret")}
	signed := func(secret, id, body string, at time.Time) http.Header {
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body)
		return http.Header{"Webhook-Id": {"a"}, "Webhook-Timestamp": {fmt.Sprint(at.Unix())}, "Webhook-Signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))}}
	}
	now := time.Now()
	for name, c := range map[string]struct {
		header http.Header
		is     bool
	}{
		"good":           {signed("secret", "a", "body", now), true},
		"another secret": {signed("other", "a", "body", now), false},
		"another id":     {signed("secret", "b", "body", now), false},
		"another body":   {signed("secret", "a", "bodies", now), false},
		"an old one":     {signed("secret", "a", "body", now.Add(-time.Hour)), false},
		"none":           {http.Header{}, false},
	} {
		if got := o.signed(c.header, []byte("body")); got != c.is {
			t.Errorf("%s: %t", name, got)
		}
	}
}
