// Package messagetest has hostile messages for tests.
package messagetest

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

const (
	sampleMachine = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07"
	maxPayload    = 64 << 10 // bytes of a request (docs/messages.md)
)

// Sample is a message as somebody might publish it.
type Sample struct {
	Header map[string][]string
	Data   []byte
}

// Hostile returns n messages, always the same, each with the name of its kind. None may be accepted as a request, nor get
// the id "mine", which all of them claim. Each has the given header.
func Hostile(n int, header map[string][]string) iter.Seq2[string, Sample] {
	r := rand.New(rand.NewPCG(4711, 42)) //nolint:gosec // the same messages each time: nothing is to be guessed
	names := slices.Sorted(maps.Keys(hostile))
	good := `{"machineId":"` + sampleMachine + `","comment":"c","id":"mine"}`
	return func(yield func(string, Sample) bool) {
		for i := range n {
			name, h := names[i%len(names)], map[string][]string{}
			maps.Copy(h, header)
			data := []byte(hostile[name](r, good, h))
			if !yield(name, Sample{h, data}) {
				return
			}
		}
	}
}

// hostile are ways to make a good message bad. Each gets a good payload with the id "mine" and may add headers.
var hostile = map[string]func(r *rand.Rand, good string, h map[string][]string) string{
	"cut": func(r *rand.Rand, good string, _ map[string][]string) string { return good[:r.IntN(len(good)-1)] },
	"tail": func(r *rand.Rand, good string, _ map[string][]string) string {
		return good + pick(r, "x", "{}", good, ",", "\x00", "]", "null")
	},
	"head": func(r *rand.Rand, good string, _ map[string][]string) string {
		return pick(r, "\ufeff", "x", "[", "\x00", "//\n", "\x1f\x8b") + good
	},
	"in array": func(_ *rand.Rand, good string, _ map[string][]string) string { return "[" + good + "]" },
	"quotes": func(_ *rand.Rand, good string, _ map[string][]string) string {
		return strings.ReplaceAll(good, `"`, "'")
	},
	"wide": func(_ *rand.Rand, good string, _ map[string][]string) string {
		return strings.Join(strings.Split(good, ""), "\x00") + "\x00"
	},
	"repeated key": func(r *rand.Rand, good string, _ map[string][]string) string {
		return with(good, pick(r, `"comment":"d"`, `"ID":"other"`, `"machineid":"x"`, `"\u0063omment":"d"`, nest(r, `{"k":1,"k":1}`)))
	},
	"invalid UTF-8": func(r *rand.Rand, good string, _ map[string][]string) string {
		return with(good, nest(r, `"`+pick(r, "\xff", "\xc0\xaf", "\xe2\x82", "\xed\xa0\x80", "\xf5\x80\x80\x80")+`"`))
	},
	"half a surrogate": func(r *rand.Rand, good string, _ map[string][]string) string {
		return with(good, nest(r, pick(r, `"\ud800"`, `"\udfff\ud800"`, `"\uD83Dx"`)))
	},
	"raw control character": func(r *rand.Rand, good string, _ map[string][]string) string {
		return with(good, nest(r, "\"a"+string(rune(r.IntN(32)))+"b\""))
	},
	"no value": func(r *rand.Rand, good string, _ map[string][]string) string {
		return with(good, nest(r, pick(r, "NaN", "Infinity", "01", "+1", "undefined", ".5", "'x'", "/*x*/1", "1_000", `"\x41"`)))
	},
	"deep": func(_ *rand.Rand, good string, _ map[string][]string) string {
		return with(good, `"x":`+strings.Repeat("[", 12000)+strings.Repeat("]", 12000))
	},
	"open": func(_ *rand.Rand, good string, _ map[string][]string) string {
		return good[:len(good)-1] + `,"x":` + strings.Repeat(`{"a":`, 9000)
	},
	"too large": func(r *rand.Rand, good string, _ map[string][]string) string {
		return with(good, `"x":"`+strings.Repeat("y", maxPayload+r.IntN(1<<20))+`"`)
	},
	"wrong type": func(r *rand.Rand, _ string, _ map[string][]string) string {
		name := pick(r, "machineId", "comment", "id", "requestedBy", "ticket", "batch", "metadata", "expiresAt", "replyTo")
		value := pick(r, "1", "true", "[]", `["x"]`, "1e9", "-0.5")
		if name != "metadata" {
			value = pick(r, value, "{}", `{"a":1}`)
		}
		return without(name, `"`+anyCase(r, name)+`":`+value)
	},
	"machine": func(r *rand.Rand, _ string, _ map[string][]string) string {
		text, _ := json.Marshal(pick(r, "", "../../machines/x/isolate", sampleMachine[1:], sampleMachine+"/isolate?", sampleMachine[:38]+"%2", "desktop-1.contoso.com",
			sampleMachine+"\r\nX: y", " "+sampleMachine[1:], strings.Repeat("Ａ", 40), strings.Repeat("a", r.IntN(39)), sampleMachine[:39]+"\x00"))
		return without("machineId", `"machineId":`+string(text))
	},
	"missing": func(r *rand.Rand, _ string, _ map[string][]string) string {
		return without(pick(r, "machineId", "comment"), `"x":1`)
	},
	"comment": func(r *rand.Rand, _ string, _ map[string][]string) string {
		return without("comment", `"comment":"`+pick(r, "", " ", `\t\r\n`, `\u2003`, strings.Repeat("日", 4001), strings.Repeat("x", 50000))+`"`)
	},
	"id": func(r *rand.Rand, _ string, _ map[string][]string) string {
		return without("id", `"id":"`+pick(r, "", `a\nb`, `\u0000`, `\u007f`, `\u0085`, "REMEDIATION:1", fmt.Sprint("REMEDIATION:", r.Uint64()), strings.Repeat("語", 257), strings.Repeat("x", 3000))+`"`)
	},
	"id in a header": func(r *rand.Rand, _ string, h map[string][]string) string {
		h["Nats-Msg-Id"] = []string{pick(r, "REMEDIATION:1", "\xff", "a\x1bb", strings.Repeat("x", 257))}
		return without("id", `"x":1`)
	},
	"subject": func(r *rand.Rand, good string, _ map[string][]string) string {
		text, _ := json.Marshal(pick(r, "remediation.results", "$JS.API.STREAM.DELETE.REMEDIATION", "_R_.x", "a.>", ">", "a.*.b", "", "a..b", ".a", "a.", "a b", "a\r\nPUB x 1", "a\x00", strings.Repeat("x", 5000)))
		return with(good, `"replyTo":`+string(text))
	},
	"metadata": func(r *rand.Rand, good string, _ map[string][]string) string {
		return with(good, `"metadata":{"x":"`+strings.Repeat("m", 8<<10+r.IntN(9999))+`"}`)
	},
	"time": func(r *rand.Rand, good string, _ map[string][]string) string {
		return with(good, `"expiresAt":"`+pick(r, "", "soon", "2099-02-30T00:00:00Z", "2099-01-01", "2099-01-01T24:00:00Z", "4102444800", "2099-01-01T00:00:00", "20990101T000000Z")+`"`)
	},
	"event": func(r *rand.Rand, good string, h map[string][]string) string {
		h["Content-Type"] = []string{pick(r, "application/cloudevents+json", "APPLICATION/CLOUDEVENTS+JSON; charset=utf-8")}
		return pick(r, good, structured(`"data":null`), structured(`"data":"x"`), structured(`"data":{"a":1,"a":1}`), structured(`"x":1`), structured(`"data_base64":"!"`),
			`{"specversion":"2.0","id":"1","source":"/s","type":"t","data":`+good+`}`, `{"specversion":"1.0","source":"/s","type":"t","data":`+good+`}`)
	},
	"value left out": func(r *rand.Rand, good string, h map[string][]string) string {
		if r.IntN(3) > 0 {
			good = structured(`"data":` + good)
		}
		if r.IntN(3) == 0 {
			h["Content-Type"] = []string{"application/cloudevents+json"}
		}
		parts := strings.Split(good, `:"`)
		n := 1 + r.IntN(len(parts)-1)
		_, parts[n], _ = strings.Cut(parts[n], `"`)
		return strings.Join(parts[:n], `:"`) + ":" + strings.Join(parts[n:], `:"`)
	},
	"batch": func(_ *rand.Rand, good string, h map[string][]string) string {
		h["content-type"] = []string{"application/cloudevents-batch+json"}
		return "[" + structured(`"data":`+good) + "]"
	},
	"binary event": func(r *rand.Rand, good string, h map[string][]string) string {
		for i, name := range []string{"ce-id", "ce-source", "ce-type", "ce-specversion"} {
			h[name] = []string{[]string{"1", "/s", "t", "1.0"}[i]}
		}
		bad := pick(r, "ce-id", "CE-Source", "ce-type", "ce-specversion")
		delete(h, strings.ToLower(bad))
		h[bad] = []string{pick(r, "", " ")}
		return good
	},
}

func pick(r *rand.Rand, list ...string) string { return list[r.IntN(len(list))] }

// with adds a member to a payload, without makes one with another member in place of the named one.
func with(good, member string) string { return good[:len(good)-1] + "," + member + "}" }

func without(name, member string) string {
	list := []string{member}
	for _, m := range [][2]string{{"machineId", sampleMachine}, {"comment", "c"}, {"id", "mine"}} {
		if m[0] != name {
			list = append(list, `"`+m[0]+`":"`+m[1]+`"`)
		}
	}
	return "{" + strings.Join(list, ",") + "}"
}

// nest puts a value somewhere into a member, known or not.
func nest(r *rand.Rand, value string) string {
	for range r.IntN(6) {
		value = pick(r, `{"a":`+value+`}`, `[`+value+`]`, `[1,{"b":2},`+value+`]`, `{"a":1,"b":`+value+`}`)
	}
	return pick(r, `"unknown":`, `"metadata":`, `"x":`) + value
}

func anyCase(r *rand.Rand, name string) string {
	return pick(r, name, strings.ToUpper(name), strings.ToLower(name))
}

// structured is a CloudEvent with these members and data.
func structured(data string) string {
	return `{"specversion":"1.0","type":"com.contoso.unrestrict","source":"/soar","id":"1",` + data + `}`
}
