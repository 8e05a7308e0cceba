package defender

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeAction(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, c := range map[string]struct {
		text string
		want MachineAction
	}{
		"live": {created, MachineAction{
			ID: actionID, Type: TypeUnrestrict, Status: "Pending", MachineID: machine, RequestorComment: "why",
			CreationTime: at("2024-10-21T11:27:58.1447302Z"), LastUpdateTime: at("2024-10-21T11:27:58.1447307Z"),
		}},
		"older name of the update": {
			`{"id":"a","creationDateTimeUtc":"2018-12-04T12:15:04.3825985Z","lastUpdateTimeUtc":"2018-12-04T12:18:27.1Z"}`,
			MachineAction{ID: "a", CreationTime: at("2018-12-04T12:15:04.3825985Z"), LastUpdateTime: at("2018-12-04T12:18:27.1Z")},
		},
		"both names": {
			`{"id":"a","lastUpdateTimeUtc":"2018-12-04T12:18:27Z","lastUpdateDateTimeUtc":"2019-12-04T12:18:27Z"}`,
			MachineAction{ID: "a", LastUpdateTime: at("2019-12-04T12:18:27Z")},
		},
		"no zone":       {`{"id":"a","creationDateTimeUtc":"2018-12-04T12:15:04.38"}`, MachineAction{ID: "a", CreationTime: at("2018-12-04T12:15:04.38Z")}},
		"another zone":  {`{"id":"a","creationDateTimeUtc":"2018-12-04T12:15:04+02:00"}`, MachineAction{ID: "a", CreationTime: at("2018-12-04T10:15:04Z")}},
		"wrong types":   {`{"id":"a","status":5,"type":null,"machineId":{},"creationDateTimeUtc":12,"requestor":[]}`, MachineAction{ID: "a"}},
		"names in case": {`{"id":"a","ID":"b","Id":7,"STATUS":"Succeeded"}`, MachineAction{ID: "a"}},
	} {
		got, err := decodeAction([]byte(c.text))
		c.want.Raw = []byte(c.text)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	for _, bad := range []string{``, `null`, `[]`, `"x"`, `{}`, `{"id":""}`, `{"id":" "}`, `{"id":7}`, `{"id":"a"`, `{"id":"a"}x`} {
		if a, err := decodeAction([]byte(bad)); err == nil {
			t.Errorf("%s: taken for %+v", bad, a)
		}
	}
}

func TestFinal(t *testing.T) {
	for status, want := range map[string]bool{
		"Pending": false, "InProgress": false, "Succeeded": true, "Failed": true, "TimeOut": true, "Cancelled": true, "Canceled": true,
		"": false, "succeeded": false, "Unknown": false, "PendingApproval": false,
	} {
		if got := (MachineAction{Status: status}).Final(); got != want {
			t.Errorf("%q: %t", status, got)
		}
	}
}

func TestDecodeList(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		ids  string
		more bool
		err  bool
	}{
		"empty":         {text: `{"value":[]}`},
		"two":           {text: `{"@odata.context":"c","value":[{"id":"a"}, {"id":"b"}]}`, ids: "a b"},
		"more":          {text: `{"value":[{"id":"a"}],"@odata.nextLink":"https://elsewhere/"}`, ids: "a", more: true},
		"one without":   {text: `{"value":[{"id":"a"},{"id":7},{"id":"b"}]}`, ids: "a b", err: true},
		"null element":  {text: `{"value":[null]}`, err: true},
		"no value":      {text: `{}`, err: true},
		"null":          {text: `{"value":null}`, err: true},
		"another name":  {text: `{"Value":[]}`, err: true},
		"a wrong type":  {text: `{"value":{"id":"a"}}`, err: true},
		"no object":     {text: `[]`, err: true},
		"odd next link": {text: `{"value":[],"@odata.nextLink":5}`},
		"blank":         {text: `{"value":[ ]}`},
		"brackets":      {text: `{"value":[{"id":"],["},{"x":[{}],"id":"b"}]}`, ids: "],[ b"},
		"twice":         {text: `{"value":[{"id":"a"}],"value":[{"id":"b"}]}`, ids: "b"},
		"cut":           {text: `{"value":[{"id":"a"}`, err: true},
		"nothing":       {text: ``, err: true},
		"no entities":   {text: `{"value":[` + strings.Repeat("0,", maxEntities) + `0]}`, err: true},
	} {
		page, err := decodeList([]byte(c.text))
		var ids []string
		for _, a := range page.Actions {
			ids = append(ids, a.ID)
		}
		if strings.Join(ids, " ") != c.ids || page.More != c.more || (err != nil) != c.err {
			t.Errorf("%s: got %v, more %t, error %v", name, ids, page.More, err)
		}
	}
	page, err := decodeList([]byte("{\"value\":[ {\"id\" : \"a\", \"n\":1.50E+3 }\t,{\"id\":\"b\"}]}"))
	if err != nil || string(page.Actions[0].Raw) != `{"id" : "a", "n":1.50E+3 }` {
		t.Errorf("bytes not kept: %s (%v)", page.Actions[0].Raw, err)
	}
}

// TestListOfMillions: a small answer can hold any number of entities. What is kept of one with too many is nothing.
func TestListOfMillions(t *testing.T) {
	full := `{"value":[` + strings.Repeat(`{"id":"a"},`, maxEntities-1) + `{"id":"b"}`
	if page, err := decodeList([]byte(full + `]}`)); err != nil || len(page.Actions) != maxEntities {
		t.Errorf("a full page: %d actions, %v", len(page.Actions), err)
	}
	if page, err := decodeList([]byte(full + `,{"id":"c"}]}`)); err == nil || page.Actions != nil {
		t.Errorf("one more: %d actions, %v", len(page.Actions), err)
	}
}

func FuzzDecodeAction(f *testing.F) {
	for _, s := range []string{created, `{"id":"a","creationDateTimeUtc":"2018-12-04T12:15:04.3825985Z"}`, `{"id":7}`, `{"id":"\ud800"}`, `[]`, `{"id":"a","id":"b"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := decodeAction(body)
		if err != nil {
			return
		}
		if a.ID == "" || string(a.Raw) != string(body) || !json.Valid(a.Raw) {
			t.Fatalf("%+v", a)
		}
		// encoding/json reads the same.
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(body, &fields); err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]string{"id": a.ID, "type": a.Type, "status": a.Status, "machineId": a.MachineID, "requestorComment": a.RequestorComment} {
			var want string
			if json.Unmarshal(fields[name], &want) != nil {
				want = ""
			}
			if got != want && !strings.HasPrefix(want, got) {
				t.Fatalf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

func FuzzDecodeList(f *testing.F) {
	for _, s := range []string{`{"value":[` + created + `]}`, `{"value":[{}]}`, `{"value":null}`, `{"value":[{"id":"a"}],"@odata.nextLink":"x"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		page, err := decodeList(body)
		// encoding/json finds as many.
		var want struct{ Value []json.RawMessage }
		if err == nil && (json.Unmarshal(body, &want) != nil || !bytes.Contains(body, []byte(`alue`)) || len(want.Value) != len(page.Actions)) && bytes.Count(body, []byte(`alue`)) == 1 {
			t.Fatalf("%d entities, encoding/json finds %d", len(page.Actions), len(want.Value))
		}
		for _, a := range page.Actions {
			if a.ID == "" || !json.Valid(a.Raw) {
				t.Fatalf("%+v", a)
			}
		}
	})
}
