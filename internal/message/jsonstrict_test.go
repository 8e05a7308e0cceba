package message

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadObject(t *testing.T) {
	got, err := readObject([]byte(" \r\n\t{ \"a\" : 1.50e3 ,\"b\":[ {\"a\":1},{\"a\":{}} ],\"\\u0063\" :\t\"x\\\"}\" , \"d\":{\"a\":null}, \"\":true } \n"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range got {
		list = append(list, m.name+"="+string(m.value))
	}
	want := []string{"a=1.50e3", `b=[ {"a":1},{"a":{}} ]`, `c="x\"}"`, `d={"a":null}`, "=true"}
	if d := cmp.Diff(want, list); d != "" {
		t.Error(d)
	}
	for _, good := range []string{
		`{}`, `{"a":1e999}`, `{"a":"\ud83d\ude00"}`, `{"a":"\\ud800"}`, `{"a":{"a":{"a":1}},"A":1}`,
		`{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
	} {
		if _, err := readObject([]byte(good)); err != nil {
			t.Errorf("readObject(%.60s): %v", good, err)
		}
	}
}

func TestReadObjectRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "unexpected end"},
		{"[]", "not a JSON object"},
		{"null", "not a JSON object"},
		{"\ufeff{}", "is no JSON object"},
		{`{"a":NaN}`, "is no JSON object"},
		{`{"a":01}`, "is no JSON object"},
		{`{"a":1,}`, "is no JSON object"},
		{`{"a":[1,]}`, "is no JSON object"},
		{`{"a" 1}`, "is no JSON object"},
		{`{"a":1 "b":2}`, "is no JSON object"},
		{`{"a"::1}`, "is no JSON object"},
		{`{"a":[1}`, "is no JSON object"},
		{`{1:2}`, "is no JSON object"},
		{`{"a":`, "unexpected end"},
		{`{"a":1`, "unexpected end"},
		{`{} {}`, "more than one JSON value"},
		{`{}x`, "is no JSON object"},
		{`{"a":1,"a":1}`, `the key "a" twice`},
		{`{"a":1,"\u0061":1}`, `the key "a" twice`},
		{`{"x":[[{"k":{},"b":1,"k":{}}]]}`, `the key "k" twice`},
		{`{"x":{"a":{"b":[{"c":1,"d":2,"c":1}]}}}`, `the key "c" twice`},
		{"{\"a\":\"\xff\"}", "not UTF-8"},
		{"{\"a\xc0\xaf\":1}", "not UTF-8"},
		{`{"a":"\ud800"}`, "half a surrogate"},
		{`{"a":"\udc00\ud800"}`, "half a surrogate"},
		{`{"a":"\ud800\u0041"}`, "half a surrogate"},
		{`{"\ud800":1}`, "half a surrogate"},
		{`{"a":` + strings.Repeat("[", 10001) + strings.Repeat("]", 10001) + `}`, "exceeded max depth"},
	} {
		_, err := readObject([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("readObject(%.60q): %v, want %q", c.in, err, c.want)
		}
	}
}

// What stands before a fault is still told, what it cuts through is not.
func TestReadObjectPartly(t *testing.T) {
	for in, want := range map[string]int{
		`{"id":"a","b":{"c`: 1, `{"id":"a",`: 1, `{"id":"a"]`: 1, `]`: 0, `{,`: 0, `{]"`: 0, `{"id":"a`: 0, `{"id":`: 0, `{"id":"a"`: 1, `{"id":"a","b":1,"b":2}`: 2, `{"id":"a"}}`: 1, `{"id":{"x":1},`: 1,
	} {
		if list, err := readObject([]byte(in)); err == nil || len(list) != want {
			t.Errorf("readObject(%s) = %d members, %v, want %d", in, len(list), err, want)
		}
	}
}

// FuzzReadObject holds readObject against encoding/json: it takes nothing that json does not, splits as json does,
// and refuses what json takes only for a reason of its own.
func FuzzReadObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1,"a":2}`, `{"a":{"b":[1,{"c":null}]},"d":"\ud83d\ude00"}`, `{"a":"\ud800"}`, "{\"\xff\":1}", `[]`, ` {"x" : [ ] } `} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readObject(data)
		var want map[string]json.RawMessage
		jsonErr := json.Unmarshal(data, &want)
		if err != nil {
			ours := strings.Contains(err.Error(), "twice") || strings.Contains(err.Error(), "UTF-8") || strings.Contains(err.Error(), "surrogate")
			if jsonErr == nil && want != nil && !ours {
				t.Fatalf("refused %q: %v", data, err)
			}
			return
		}
		if jsonErr != nil || len(want) != len(got) {
			t.Fatalf("took %q as %d members; encoding/json: %v, %d", data, len(got), jsonErr, len(want))
		}
		for _, m := range got {
			if string(want[m.name]) != string(m.value) {
				t.Fatalf("%q: %q is %q, encoding/json says %q", data, m.name, m.value, want[m.name])
			}
		}
	})
}
