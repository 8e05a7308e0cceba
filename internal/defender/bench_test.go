package defender

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkPage reads a page of ten thousand actions, as the tracker does.
func BenchmarkPage(b *testing.B) {
	var text strings.Builder
	text.WriteString(`{"value":[`)
	for i := range maxEntities {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(strings.ReplaceAll(created, "ed74c544", fmt.Sprintf("%08x", i)))
	}
	text.WriteString(`]}`)
	body, token, c := []byte(text.String()), newSecret(strings.Repeat(secretToken, 10)), &Client{maxAction: 1 << 20}
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		page, err := decodeList(body)
		if err != nil {
			b.Fatal(err)
		}
		for i := range page.Actions {
			c.handedOut(&page.Actions[i], token)
		}
	}
}
