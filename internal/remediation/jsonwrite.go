package remediation

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// object writes a JSON object member by member, as encoding/json would write the struct (TestObjectIsTheStruct), but for
// the escapes of HTML. That happens several times on the way of every request, and takes four times as long by reflection
// (BenchmarkEncode).
type object struct {
	b   []byte
	err error // of what JSON can't hold
}

// newObject opens an object; size is what it may come to.
func newObject(size int) *object { return &object{b: append(make([]byte, 0, size), '{')} }

// open begins a member that is an object itself, up to shut.
func (o *object) open(name string) {
	o.name(name)
	o.b = append(o.b, '{')
}

func (o *object) shut() { o.b = append(o.b, '}') }

func (o *object) end() ([]byte, error) { return append(o.b, '}'), o.err }

// name begins a member, whose value is to be written behind it.
func (o *object) name(name string) {
	if last := o.b[len(o.b)-1]; last != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, '"'), name...), '"', ':')
}

func (o *object) text(name, value string) {
	o.name(name)
	o.b = appendText(o.b, value)
}

// some is text unless it is empty.
func (o *object) some(name, value string) {
	if value != "" {
		o.text(name, value)
	}
}

func (o *object) count(name string, n int) {
	if n != 0 {
		o.number(name, n)
	}
}

func (o *object) number(name string, n int) {
	o.name(name)
	o.b = strconv.AppendInt(o.b, int64(n), 10)
}

func (o *object) sequence(name string, n uint64) {
	if n != 0 {
		o.name(name)
		o.b = strconv.AppendUint(o.b, n, 10)
	}
}

func (o *object) flag(name string, set bool) {
	if set {
		o.name(name)
		o.b = append(o.b, "true"...)
	}
}

func (o *object) duration(name string, d Duration) {
	if d != 0 {
		o.text(name, time.Duration(d).String())
	}
}

func (o *object) time(name string, t time.Time) {
	if !t.IsZero() {
		o.instant(name, t)
	}
}

func (o *object) instant(name string, t time.Time) {
	o.name(name)
	o.b = append(o.b, '"')
	b, err := t.AppendText(o.b)
	if err != nil {
		o.err = err
		return
	}
	o.b = append(b, '"')
}

func (o *object) failure(name string, f *Failure) {
	if f != nil {
		o.value(name, f)
	}
}

func (o *object) calls(name string, calls []Call) {
	if len(calls) == 0 {
		return
	}
	o.name(name)
	o.b = append(o.b, '[')
	for i, c := range calls {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = append(o.b, '{')
		o.instant("time", c.Time)
		o.text("operation", c.Operation)
		o.some("class", c.Class)
		o.count("httpStatus", c.HTTPStatus)
		o.some("code", c.Code)
		o.some("correlationId", c.CorrelationID)
		o.b = append(o.b, '}')
	}
	o.b = append(o.b, ']')
}

// value is for what is seldom there.
func (o *object) value(name string, value any) {
	o.name(name)
	b, err := encodePlain(value)
	if err != nil {
		o.err = err
	}
	o.b = append(o.b, b...)
}

// raw is a value that is JSON already.
func (o *object) raw(name string, value []byte) {
	o.name(name)
	o.b = append(o.b, value...)
}

// appendText leaves to encoding/json what is not plain: quotes, controls, all that is not ASCII.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := encodePlain(s) // a string can't fail
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// encodePlain leaves < and > as they are: people search in results and records.
func encodePlain(value any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
