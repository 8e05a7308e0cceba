package remediation

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// TestObjectIsTheStruct holds what is written by hand against what encoding/json makes of the same struct: empty, full, and
// with each field alone, so that no field can be forgotten or get another name.
func TestObjectIsTheStruct(t *testing.T) {
	for name, c := range map[string]struct {
		empty  any
		encode func(any) ([]byte, error)
	}{
		"entry": {Entry{}, func(v any) ([]byte, error) { e := v.(Entry); return e.encode(0) }},
		"record": {AuditRecord{}, func(v any) ([]byte, error) {
			r := v.(AuditRecord)
			b, err := r.AppendMembers([]byte("{"))
			return append(b, '}'), err
		}},
		"result": {Result{}, func(v any) ([]byte, error) { return v.(Result).body() }},
	} {
		t.Run(name, func(t *testing.T) {
			same := func(v reflect.Value) {
				t.Helper()
				want, err := encodePlain(v.Interface())
				if err != nil {
					t.Fatal(err)
				}
				got, err := c.encode(v.Interface())
				if err != nil || string(got) != string(want) {
					t.Errorf("%s, %v; want %s", got, err, want)
				}
			}
			kind := reflect.TypeOf(c.empty)
			full := reflect.New(kind).Elem()
			same(full)
			n := 0
			for i := range kind.NumField() {
				if f := kind.Field(i); f.Tag.Get("json") == "-" || f.Type == reflect.TypeFor[json.RawMessage]() {
					continue // the one is not written, the other stands at the end (TestResultGolden)
				}
				for _, text := range []string{"plain", "<a&b>\u2028", "quo\"te\\", "tab\tü\x7f", "\xff"} {
					one := reflect.New(kind).Elem()
					fill(t, one.Field(i), text, &n)
					same(one)
					fill(t, full.Field(i), text, &n)
				}
			}
			same(full)
			if n < 150 {
				t.Errorf("only %d values", n)
			}
		})
	}
}

// fill sets a value, and in it all there is, each to another one.
func fill(t *testing.T, v reflect.Value, text string, n *int) {
	t.Helper()
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 11, 27, 5, 31, *n, 123456780, time.UTC)))
		return
	case []byte:
		v.SetBytes(fmt.Append(nil, text, *n))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint(text, *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(-*n))
	case reflect.Uint64:
		v.SetUint(1<<63 + uint64(*n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), text, n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(1), text, n)
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(t, field, text, n)
		}
	default:
		t.Fatalf("no value for a %s", v.Type())
	}
}

func TestObjectSaysWhatItCantWrite(t *testing.T) {
	e := Entry{ReceivedAt: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}
	if b, err := e.encode(0); err == nil {
		t.Errorf("a year of five digits became %s", b)
	}
}

func BenchmarkEncode(b *testing.B) {
	e := Entry{
		Version: 1, State: StateSubmitted, Run: 1, Nonce: nonce(), ID: "bench-1", Print: fingerprint(sampleMachine, "Cleaned and validated"),
		MachineID: sampleMachine, Comment: "Cleaned and validated", Source: "REMEDIATION:1", Asked: time.Now().UTC(), ReceivedAt: time.Now().UTC(),
		CalledAt: time.Now().UTC(), LastCall: time.Now().UTC(), Attempts: 1, Allowed: true, Follow: true, ActionID: "44cffc15-0e3d-4cbf-96aa-bf76f9b27f5e",
		Created: time.Now().UTC(), Accepted: time.Now().UTC(), Calls: []Call{{Time: time.Now().UTC(), Operation: opUnrestrict, Class: classAnswered, HTTPStatus: 201}},
		Stages: Stages{Queue: Duration(time.Second), API: Duration(20 * time.Millisecond)},
	}
	for name, encode := range map[string]func() ([]byte, error){
		"hand":    func() ([]byte, error) { return e.encode(1024) },
		"reflect": func() ([]byte, error) { return json.Marshal(&e) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := encode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
