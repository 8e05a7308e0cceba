package submit

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/rows"
)

func TestJSONRows(t *testing.T) {
	rules := message.Rules{Stream: "REMEDIATION"}
	object := `"machineId":"` + goodMachine + `","comment":"c"`
	for _, c := range []struct {
		name, content, comment string
		payloads, mistakes     []string
	}{
		{
			name:    "what is missing is added, null counts as missing, what is unknown is left out",
			content: "\n{" + object + `,"id":null,"Batch":null,"more":1}` + "\r\n\n",
			payloads: []string{
				`{"machineId":"` + strings.ToLower(goodMachine) + `","comment":"c","id":"batch:2","batch":"batch"}`,
			},
		},
		{
			name:    "what is there stays",
			content: `{` + object + `,"id":"x","requestedBy":"r","ticket":"t","batch":"b","metadata":{"b":1e3, "a":[null]},"expiresAt":"2026-11-24T18:00:00.5+01:00","replyTo":"a.b"}`,
			payloads: []string{
				`{"machineId":"` + strings.ToLower(goodMachine) + `","comment":"c","id":"x","requestedBy":"r","ticket":"t","batch":"b","metadata":{"b":1e3,"a":[null]},"expiresAt":"2026-11-24T18:00:00.5+01:00","replyTo":"a.b"}`,
			},
		},
		{
			name:     "a CloudEvent",
			content:  `{"specversion":"1.0","id":"7","source":"/soar","type":"t","data":{` + object + `}}`,
			payloads: []string{`{"machineId":"` + strings.ToLower(goodMachine) + `","comment":"c","id":"/soar#7","batch":"batch"}`},
		},
		{
			name: "one comment for all", comment: `<"c">`,
			content:  `{"machineId":"` + goodMachine + `"}`,
			payloads: []string{`{"machineId":"` + strings.ToLower(goodMachine) + `","comment":"<\"c\">","id":"batch:1","batch":"batch"}`},
		},
		{
			name: "mistakes", comment: "for all",
			content: "{}\nnull\n[]\n{" + object + "}\n{\"Comment\":null}\n",
			mistakes: []string{
				"file, line 1: machineId: is required; add it",
				"file, line 2: payload: is not a JSON object; send one object in braces",
				"file, line 3: payload: is not a JSON object; send one object in braces",
				"file, line 4: has a comment although --comment gives one for all rows; leave one of them out",
				"file, line 5: has a comment although --comment gives one for all rows; leave one of them out",
			},
		},
		{
			name:     "a line that never ends",
			content:  "{" + object + "}\n{" + strings.Repeat(" ", 1<<20) + "}\n",
			payloads: []string{`{"machineId":"` + strings.ToLower(goodMachine) + `","comment":"c","id":"batch:1","batch":"batch"}`},
			mistakes: []string{"file, line 2: is longer than 1 MiB; a request has at most 64 KiB"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var payloads, mistakes []string
			b := testBulk(rows.JSON(strings.NewReader(c.content), c.comment, rules))
			for p := range b.Requests() {
				if p.err != nil {
					mistakes = append(mistakes, b.where(p.Line)+": "+p.err.Error())
				} else {
					payloads = append(payloads, string(p.Payload))
				}
			}
			if diff := cmp.Diff(c.payloads, payloads); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.mistakes, mistakes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzJSONRows(f *testing.F) {
	object := `{"machineId":"` + goodMachine + `","comment":"c"`
	for _, seed := range []string{
		object + "}\n\n" + object + `,"id":"x","metadata":{"a":{"b":[1,2.5e3]}}}`,
		`{"machineId":"` + goodMachine + `"}`,
		`{"specversion":"1.0","id":"7","source":"/soar","type":"t","data":` + object + `}}`,
		object + `,"expiresAt":"2026-11-24t18:00:00.123456789z"}`,
		"null\r\n{",
	} {
		f.Add([]byte(seed), "")
		f.Add([]byte(seed), "for all")
	}
	f.Fuzz(func(t *testing.T, content []byte, comment string) {
		comment = strings.ToValidUTF8(comment, "") // as the command line is checked for
		rules := message.Rules{Stream: "REMEDIATION"}
		fuzzRows(t, content, func(yield func(rows.Row) bool) { rows.JSON(bytes.NewReader(content), comment, rules)(yield) })
	})
}
