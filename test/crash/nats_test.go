package crash_test

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// frame is one protocol message between a NATS client and its server. [doc] NATS client protocol
type frame struct {
	raw            []byte // as it goes over the wire
	subject, reply string // of a message, either way; else empty
	body           string // without headers
}

func readFrame(r *bufio.Reader) (frame, error) {
	line, err := r.ReadBytes('\n')
	f := frame{raw: line}
	if err != nil {
		return f, err
	}
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return f, nil
	}
	sizes := 1
	switch words[0] {
	case "PUB", "MSG":
	case "HPUB", "HMSG":
		sizes = 2
	default:
		return f, nil
	}
	if len(words) < 2+sizes {
		return f, fmt.Errorf("not understood: %q", line)
	}
	var head, total int
	if total, err = strconv.Atoi(words[len(words)-1]); err != nil {
		return f, err
	}
	if sizes == 2 {
		if head, err = strconv.Atoi(words[len(words)-2]); err != nil {
			return f, err
		}
	}
	names := words[1 : len(words)-sizes]
	f.subject = names[0]
	if strings.HasSuffix(words[0], "MSG") {
		names = names[1:] // the subscription's number stands between
	}
	if len(names) > 1 {
		f.reply = names[1]
	}
	rest := make([]byte, total+len("\r\n"))
	if _, err := io.ReadFull(r, rest); err != nil {
		return f, err
	}
	f.raw, f.body = append(line, rest...), string(rest[head:total])
	return f, nil
}
