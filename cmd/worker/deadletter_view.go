package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/unrestrict-worker/internal/admin"
	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// letterView is a dead letter in JSON. The payload is as it was where it is JSON (encoding json), a string where it
// is other text (text), else a string in base64; it is absent where it was left out (truncated).
type letterView struct {
	Seq             uint64              `json:"seq"`
	RequestID       string              `json:"requestId"`
	SignedBy        string              `json:"signedBy,omitempty"`
	Client          string              `json:"client,omitempty"`
	ClaimedID       string              `json:"claimedId,omitempty"` // where the message had no claim on the id it bears
	Run             int                 `json:"run"`
	Code            string              `json:"code"`
	Message         string              `json:"message"`
	Attempts        int                 `json:"attempts"`
	Time            time.Time           `json:"time"`
	MachineID       string              `json:"machineId,omitempty"` // where it can be read
	Subject         string              `json:"subject,omitempty"`
	Source          string              `json:"source,omitempty"` // STREAM:SEQ of the message
	Truncated       bool                `json:"truncated,omitempty"`
	PayloadEncoding string              `json:"payloadEncoding,omitempty"` // json, text, base64
	Payload         json.RawMessage     `json:"payload,omitempty"`
	Headers         map[string][]string `json:"headers,omitempty"`
}

func (l letter) view(n broker.Names) letterView {
	v := letterView{
		Seq: l.seq, RequestID: l.dead.RequestID, SignedBy: l.dead.SignedBy, Client: l.header.Get(remediation.HeaderClient), Run: l.dead.Run, Code: l.dead.Code, Message: l.dead.Message,
		Attempts: l.dead.Attempts, Time: l.dead.Time, Subject: l.dead.Delivery.Subject, Truncated: l.truncated(),
		Source: l.header.Get(remediation.HeaderDeadStream) + ":" + l.header.Get(remediation.HeaderDeadSequence),
	}
	r, claimed, _ := asked(l.dead, l.header, l.data, n.Stream)
	v.MachineID, v.ClaimedID = r.MachineID, claimed
	if !v.Truncated {
		v.PayloadEncoding, v.Payload = payloadJSON(l.data)
	}
	return v
}

func (l letter) truncated() bool { return l.header.Get(remediation.HeaderDeadTruncated) != "" }

func payloadJSON(data []byte) (encoding string, value json.RawMessage) {
	text := utf8.Valid(data)
	if text && json.Valid(data) {
		return "json", data
	}
	if text {
		value, _ = json.Marshal(string(data)) // a string always can be
		return "text", value
	}
	value, _ = json.Marshal(data)
	return "base64", value
}

// notShown stands for a signature, which is nobody's to read but the worker's.
const notShown = "(not shown)"

func (l letter) shownHeaders() map[string][]string {
	shown := map[string][]string{}
	for name, values := range l.header {
		if strings.EqualFold(name, remediation.HeaderSignature) {
			values = []string{notShown}
		}
		shown[name] = values
	}
	return shown
}

// show writes a dead letter for people: what it says of itself, the other headers, and the payload.
func (l letter) show(n broker.Names, out io.Writer) error {
	var b strings.Builder
	of := ""
	if owner := l.owner(); owner != "" {
		of = " of " + plain(owner)
	}
	_, claimed, _ := asked(l.dead, l.header, l.data, n.Stream)
	fmt.Fprintf(&b, "Dead letter %d: request %s%s, run %d, %s after %s\n", l.seq, plain(claiming(l.dead.RequestID, claimed)), of, l.dead.Run,
		plain(l.dead.Code), count(l.dead.Attempts, "call", "calls"))
	fmt.Fprintf(&b, "%s  %s\n\n", clock(l.dead.Time), plain(l.dead.Message))
	headers := l.shownHeaders()
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		for _, value := range headers[name] {
			fmt.Fprintf(&b, "%s: %s\n", plain(name), plain(value))
		}
	}
	b.WriteByte('\n')
	b.WriteString(l.payloadText())
	b.WriteString("\n\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// payloadText is the payload as it is, but for what a terminal would not show as it is.
func (l letter) payloadText() string {
	control := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' }
	switch {
	case l.truncated():
		return "(The payload was too large to be kept.)"
	case len(l.data) == 0:
		return "(The payload is empty.)"
	case !utf8.Valid(l.data) || bytes.ContainsFunc(l.data, control):
		return fmt.Sprintf("(%s, no text; in base64:)\n%s", count(len(l.data), "byte", "bytes"), base64.StdEncoding.EncodeToString(l.data))
	}
	lines := strings.Split(strings.ReplaceAll(strings.TrimRight(string(l.data), "\r\n"), "\r", ""), "\n")
	var shown []string
	spelled := false
	for _, line := range lines {
		cells := strings.Split(line, "\t")
		for i, cell := range cells {
			cells[i] = admin.Printable(cell)
			spelled = spelled || cells[i] != cell
		}
		shown = append(shown, strings.Join(cells, "\t"))
	}
	if spelled {
		shown = append([]string{"(What can't be seen is spelled out, as \\u{...}; --json has it as it came.)"}, shown...)
	}
	return strings.Join(shown, "\n")
}
