package deadletter

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
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/service"
)

// LetterView is a dead letter in JSON. The payload is unchanged if it is JSON (encoding json), a string if it is other
// text (text), otherwise a string in base64. It is absent if it was left out (truncated).
type LetterView struct {
	Seq             uint64              `json:"seq"`
	RequestID       string              `json:"requestId"`
	SignedBy        string              `json:"signedBy,omitempty"`
	Client          string              `json:"client,omitempty"`
	ClaimedID       string              `json:"claimedId,omitempty"` // if the message does not own the id that it gives itself
	Run             int                 `json:"run"`
	Code            string              `json:"code"`
	Message         string              `json:"message"`
	Attempts        int                 `json:"attempts"`
	Time            time.Time           `json:"time"`
	MachineID       string              `json:"machineId,omitempty"` // if it can be read
	Subject         string              `json:"subject,omitempty"`
	Source          string              `json:"source,omitempty"` // STREAM:SEQ of the message
	Truncated       bool                `json:"truncated,omitempty"`
	PayloadEncoding string              `json:"payloadEncoding,omitempty"` // json, text, base64
	Payload         json.RawMessage     `json:"payload,omitempty"`
	Headers         map[string][]string `json:"headers,omitempty"`
}

// View is the dead letter in JSON.
func (l Letter) View(n broker.Names) LetterView {
	v := LetterView{
		Seq: l.Seq, RequestID: l.Dead.RequestID, SignedBy: l.Dead.SignedBy, Client: l.Header.Get(message.HeaderClient), Run: l.Dead.Run, Code: l.Dead.Code, Message: l.Dead.Message,
		Attempts: l.Dead.Attempts, Time: l.Dead.Time, Subject: l.Dead.Delivery.Subject, Truncated: l.truncated(),
		Source: l.Header.Get(message.HeaderDeadStream) + ":" + l.Header.Get(message.HeaderDeadSequence),
	}
	r, _, _ := service.RequestOfDeadLetter(l.Dead, l.Header, l.Data, n.Stream)
	v.MachineID, v.ClaimedID = r.MachineID, l.Claimed
	if !v.Truncated {
		v.PayloadEncoding, v.Payload = PayloadJSON(l.Data)
	}
	return v
}

func (l Letter) truncated() bool { return l.Header.Get(message.HeaderDeadTruncated) != "" }

// PayloadJSON is a payload as JSON, and how it is encoded: json, text or base64.
func PayloadJSON(data []byte) (encoding string, value json.RawMessage) {
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

// notShown replaces a signature, which only the worker may read.
const notShown = "(not shown)"

func (l Letter) shownHeaders() map[string][]string {
	shown := map[string][]string{}
	for name, values := range l.Header {
		if strings.EqualFold(name, message.HeaderSignature) {
			values = []string{notShown}
		}
		shown[name] = values
	}
	return shown
}

// Show writes a dead letter for people: a summary, the headers, and the payload.
func (l Letter) Show(out io.Writer) error {
	var b strings.Builder
	of := ""
	if owner := l.owner(); owner != "" {
		of = " of " + session.Plain(owner)
	}
	fmt.Fprintf(&b, "Dead letter %d: request %s%s, run %d, %s after %s\n", l.Seq, session.Plain(session.Claiming(l.Dead.RequestID, l.Claimed)), of, l.Dead.Run,
		session.Plain(l.Dead.Code), session.Count(l.Dead.Attempts, "call", "calls"))
	fmt.Fprintf(&b, "%s  %s\n%s\n\n", admin.Clock(l.Dead.Time), session.Plain(l.Dead.Message), session.Plain(l.Replay.Text))
	headers := l.shownHeaders()
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		for _, value := range headers[name] {
			fmt.Fprintf(&b, "%s: %s\n", session.Plain(name), session.Plain(value))
		}
	}
	b.WriteByte('\n')
	b.WriteString(l.PayloadText())
	b.WriteString("\n\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// PayloadText returns the payload unchanged, except for what a terminal would not show unchanged.
func (l Letter) PayloadText() string {
	control := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' }
	switch {
	case l.truncated():
		return "(The payload was too large to be kept.)"
	case len(l.Data) == 0:
		return "(The payload is empty.)"
	case !utf8.Valid(l.Data) || bytes.ContainsFunc(l.Data, control):
		return fmt.Sprintf("(%s, no text; in base64:)\n%s", session.Count(len(l.Data), "byte", "bytes"), base64.StdEncoding.EncodeToString(l.Data))
	}
	lines := strings.Split(strings.ReplaceAll(strings.TrimRight(string(l.Data), "\r\n"), "\r", ""), "\n")
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
