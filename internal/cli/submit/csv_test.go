package submit

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/rows"
)

const goodMachine = "00000000000000000000000000000000000000aB"

func collect(read func(func(rows.Row) bool)) (all []rows.Row) {
	read(func(r rows.Row) bool { all = append(all, r); return true })
	return all
}

func TestCSVRows(t *testing.T) {
	for _, c := range []struct {
		name, content, comment string
		want                   []rows.Row
	}{
		{
			name:    "columns in any order and case",
			content: "Ticket,COMMENT, machineid ,metadata.Site,METADATA.lot\nSOC-1,c, " + goodMachine + " ,\"Ulm, 2\",7\n",
			want:    []rows.Row{{Line: 2, Message: rows.Message{MachineID: goodMachine, Comment: "c", Ticket: "SOC-1", Metadata: json.RawMessage(`{"Site":"Ulm, 2","lot":"7"}`)}}},
		},
		{
			name:    "lines over several lines, CRLF, no end of line at the end",
			content: "machineId,comment\r\n\r\na,\"one\r\n\"\"two\"\"\"\r\nb,c",
			want:    []rows.Row{{Line: 3, Message: rows.Message{MachineID: "a", Comment: "one\n\"two\""}}, {Line: 5, Message: rows.Message{MachineID: "b", Comment: "c"}}},
		},
		{
			name:    "a comment stays as it is, empty fields are absent",
			content: "machineId,comment,ticket,metadata.a,expiresAt\na,\" <c> & \",,,\n",
			want:    []rows.Row{{Line: 2, Message: rows.Message{MachineID: "a", Comment: " <c> & "}}},
		},
		{
			name:    "one comment for all",
			content: "machineId,id\na,x\nb,\n", comment: "for all",
			want: []rows.Row{{Line: 2, Message: rows.Message{MachineID: "a", ID: "x", Comment: "for all"}}, {Line: 3, Message: rows.Message{MachineID: "b", Comment: "for all"}}},
		},
		{
			name:    "metadata as an object, longer than it would be with escapes",
			content: "machineId,comment,metadata\na,c,\"{\"\"a\"\":\"\"<>\"\"}\"\n",
			want:    []rows.Row{{Line: 2, Message: rows.Message{MachineID: "a", Comment: "c", Metadata: json.RawMessage(`{"a":"<>"}`)}}},
		},
		{
			name:    "the reader goes on after a mistake",
			content: "machineId,comment\na\nb,\xff\nc,c\n",
			want: []rows.Row{
				{Line: 2, Err: errors.New("has more or fewer fields than the first line; a field with a comma in it needs quotes around it")},
				{Line: 3, Err: errors.New("comment: is not UTF-8; save the file as UTF-8")},
				{Line: 4, Message: rows.Message{MachineID: "c", Comment: "c"}},
			},
		},
		{
			name:    "semicolons, as Excel writes them where the comma is the decimal sign",
			content: "machineId;comment;ticket\na;\"one, two; three\";T-1\n",
			want:    []rows.Row{{Line: 2, Message: rows.Message{MachineID: "a", Comment: "one, two; three", Ticket: "T-1"}}},
		},
		{
			name:    "tabs, with commas in the header's quotes",
			content: "\"metadata.a,b,c\"\tmachineId\tcomment\n1\ta\tone, two\n",
			want:    []rows.Row{{Line: 2, Message: rows.Message{MachineID: "a", Comment: "one, two", Metadata: json.RawMessage(`{"a,b,c":"1"}`)}}},
		},
		{
			name:    "blank rows and columns, as spreadsheets leave them",
			content: "machineId,comment,ticket,,\na,c,,,\n,,,,\nb,d,T-1,,\nc,e\n , ,,,\n,,,,\n",
			want: []rows.Row{
				{Line: 2, Message: rows.Message{MachineID: "a", Comment: "c"}},
				{Line: 4, Message: rows.Message{MachineID: "b", Comment: "d", Ticket: "T-1"}},
				{Line: 5, Err: errors.New("has more or fewer fields than the first line; a field with a comma in it needs quotes around it")},
			},
		},
		{
			name:    "a value in a column without a name",
			content: "machineId;comment;;\na;c;;x\n",
			want:    []rows.Row{{Line: 2, Err: errors.New("has more or fewer fields than the first line; a field with a semicolon in it needs quotes around it")}},
		},
		{
			name:    "a plain list of machine ids",
			content: "\n" + goodMachine + "\r\n\"" + goodMachine + "\"\n\nnone\n", comment: "for all",
			want: []rows.Row{
				{Line: 2, Message: rows.Message{MachineID: goodMachine, Comment: "for all"}},
				{Line: 3, Message: rows.Message{MachineID: goodMachine, Comment: "for all"}},
				{Line: 5, Message: rows.Message{MachineID: "none", Comment: "for all"}},
			},
		},
		{
			name:    "a plain list without a comment",
			content: goodMachine + "\n" + goodMachine + "\n",
			want:    []rows.Row{{Line: 1, Err: errors.New("is a machine id: of a plain list give the comment with --comment, else name the columns in the first line")}},
		},
		{
			name:    "no line that names the columns",
			content: goodMachine + ",c\n",
			want: []rows.Row{
				{Line: 1, Err: errors.New("column 1 has a machine id where the first line names the columns; put a line such as machineId,comment above it")},
			},
		},
		{
			name:    "columns by other names",
			content: "Device ID,Requested By,expires_at,coment,Device Name\n",
			want: []rows.Row{
				{Line: 1, Err: errors.New(`unknown column "Device ID"; did you mean machineId? (metadata.Device ID is a name of your own that results echo)`)},
				{Line: 1, Err: errors.New(`unknown column "Requested By"; did you mean requestedBy? (metadata.Requested By is a name of your own that results echo)`)},
				{Line: 1, Err: errors.New(`unknown column "expires_at"; did you mean expiresAt? (metadata.expires_at is a name of your own that results echo)`)},
				{Line: 1, Err: errors.New(`unknown column "coment"; did you mean comment? (metadata.coment is a name of your own that results echo)`)},
				{Line: 1, Err: errors.New(`unknown column "Device Name" (metadata.Device Name is a name of your own that results echo)`)},
				{Line: 1, Err: errors.New("there is no column machineId; add it, or name that of the machine ids so")},
				{Line: 1, Err: errors.New("there is no column comment; add it, or give one for all rows with --comment")},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := collect(rows.CSV(strings.NewReader(c.content), c.comment))
			for i := range got {
				if got[i].Err != nil {
					got[i].Message = rows.Message{}
				}
			}
			compareErrors := cmp.Comparer(func(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) })
			if diff := cmp.Diff(c.want, got, compareErrors); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// inputOf is a file's content as the command reads it.
func inputOf(t testing.TB, name string, content []byte) *input {
	t.Helper()
	in, err := openInput(t.Context(), writeTestFile(t, name, string(content)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.close)
	return in
}

func TestInput(t *testing.T) {
	csv, jsonl := "machineId,comment\na,c\n", `{"machineId":"`+goodMachine+`","comment":"c"}`
	for _, c := range []struct {
		file, content string
		jsonl         bool
	}{
		{"a.csv", csv, false},
		{"a.CSV", "\ufeff" + csv, false},
		{"a.jsonl", jsonl, true},
		{"a.ndjson", "\ufeff\r\n" + jsonl, true},
		{"a", "\n " + jsonl, true},
		{"a.txt", csv, false},
	} {
		in := inputOf(t, c.file, []byte(c.content))
		if in.jsonl != c.jsonl {
			t.Errorf("%s: jsonl is %t", c.file, in.jsonl)
		}
		for range 2 { // it is read twice
			if rows := collect(in.rows("", message.Rules{Stream: "S"})); len(rows) != 1 || rows[0].Err != nil || rows[0].Message.Comment != "c" {
				t.Errorf("%s %q: got %+v", c.file, c.content, rows)
			}
		}
	}
	if one, other := inputOf(t, "a.csv", []byte(csv)), inputOf(t, "b.csv", []byte(csv)); one.digest != other.digest || len(one.digest) != 16 {
		t.Errorf("digests %q and %q of the same content", one.digest, other.digest)
	}
	if one, other := inputOf(t, "a.csv", []byte(csv)), inputOf(t, "a.csv", []byte(csv+"b,c\n")); one.digest == other.digest {
		t.Errorf("the same digest of different content")
	}
}

// utf16Of is text as Excel writes "Unicode text", with a byte order mark.
func utf16Of(text string, order binary.AppendByteOrder) (data []byte) {
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		data = order.AppendUint16(data, unit)
	}
	return data
}

// TestInputUTF16: what Excel writes is read as it was meant, and what is damaged is refused whole.
func TestInputUTF16(t *testing.T) {
	csv, jsonl := "machineId\tcomment\r\na\tGeprüft 🙂\r\n", `{"machineId":"`+goodMachine+`","comment":"Geprüft 🙂"}`
	little, big := utf16Of(csv, binary.LittleEndian), utf16Of(csv, binary.BigEndian)
	for name, content := range map[string][]byte{"little.csv": little, "big.csv": big, "a.jsonl": utf16Of(jsonl, binary.LittleEndian)} {
		rows := collect(inputOf(t, name, content).rows("", message.Rules{Stream: "S"}))
		if len(rows) != 1 || rows[0].Err != nil || rows[0].Message.Comment != "Geprüft 🙂" {
			t.Errorf("%s: got %+v", name, rows)
		}
	}
	for content, want := range map[string]string{
		string(little[:len(little)-1]):               "is UTF-16 that was cut or damaged; save the file as CSV UTF-8",
		string(little[:2]) + "\x3d\xd8\n\x00":        "is UTF-16 that was cut or damaged; save the file as CSV UTF-8",
		string(big[2:]):                              "is no UTF-8, and no UTF-16 with a byte order mark; save the file as CSV UTF-8",
		string(little[2:]):                           "is no UTF-8, and no UTF-16 with a byte order mark; save the file as CSV UTF-8",
		"PK\x03\x04 and so on, as .xlsx files begin": "is a workbook or another archive; save the sheet as CSV",
	} {
		path := writeTestFile(t, "a.csv", content)
		if in, err := openInput(t.Context(), path, nil); err == nil || err.Error() != path+": "+want {
			t.Errorf("%.20q: got %v, want %s", content, err, want)
			if in != nil {
				in.close()
			}
		}
	}
}

// TestInputIsACopy: what was checked is what is published, and nothing is left behind.
func TestInputIsACopy(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	path := writeTestFile(t, "a.csv", "machineId,comment\na,c\n")
	in, err := openInput(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("machineId,comment\nb,d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if rows := collect(in.rows("", message.Rules{})); len(rows) != 1 || rows[0].Message.MachineID != "a" {
		t.Errorf("got %+v", rows)
	}
	in.close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestInputEndsWithItsContext: nobody types anything, and Ctrl-C is pressed.
func TestInputEndsWithItsContext(t *testing.T) {
	silent, typist := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openInput(ctx, "-", silent); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "read standard input") {
		t.Errorf("got %v", err)
	}
	_ = typist.Close()
}

func testBulk(rows func(func(rows.Row) bool)) *Bulk {
	return &Bulk{
		name: "file", Rows: rows, Batch: "batch", base: "remediation.unrestrict",
		rules: message.Rules{Stream: "REMEDIATION", OwnSubjects: broker.Names{}.OwnSubjects()},
	}
}

func TestMistakesAreCapped(t *testing.T) {
	in := inputOf(t, "a.csv", []byte("machineId,comment\n"+strings.Repeat("a,c\n", shownMistakes+7)))
	_, err := testBulk(in.rows("", message.Rules{})).check(nil)
	if err == nil || strings.Count(err.Error(), "machineId: is not") != shownMistakes || !strings.HasSuffix(err.Error(), "\n  and 7 more") {
		t.Errorf("got %v", err)
	}
}

func FuzzCSVRows(f *testing.F) {
	for _, seed := range []string{
		"machineId,comment\n" + goodMachine + ",c\n",
		"\ufeffComment,MACHINEID,id,metadata.a,metadata.B\r\n\"a\r\nb\"," + goodMachine + ",x,1,\"\"\"\"\r\n",
		"machineId,comment,metadata,expiresAt,replyTo\n" + goodMachine + ",c,\"{\"\"a\"\":[1, 2]}\",2026-11-24T18:00:00Z,a.b\n",
		"machineId,comment,id\n" + goodMachine + ",c,REMEDIATION:1\n" + goodMachine + ",c,batch:4\n" + goodMachine + ",c,\n",
		"machineId,comment\n\"" + goodMachine + "\n",
		"machineId;comment\n" + goodMachine + ";c,;\n;;;\n",
		"machineId\tcomment\t\t\n" + goodMachine + "\tc\t\t\n\t\t\t\n",
		goodMachine + "\n" + goodMachine + ",,\n",
		"\n\n,\n",
		"machineId,comment\r" + goodMachine + ",a\x00b\r",
		"machineId,comment\n" + goodMachine + ",\"a\"b\n" + goodMachine + "\n\"\",\xff\n",
		"machineId,comment,metadata.,metadata.a,metadata.a\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		fuzzRows(t, content, func(yield func(rows.Row) bool) { rows.CSV(bytes.NewReader(content), "")(yield) })
	})
}

// fuzzRows checks what holds for whatever is in a file.
func fuzzRows(t *testing.T, content []byte, rows func(func(rows.Row) bool)) {
	lines, last := bytes.Count(content, []byte("\n"))+1, 0
	ids := map[string]bool{}
	b := testBulk(rows)
	n, err := b.check(nil)
	for p := range b.Requests() {
		if p.Line < max(last, 1) || p.Line > lines {
			t.Fatalf("line %d after %d of %d", p.Line, last, lines)
		}
		last = p.Line
		if err != nil || p.err != nil {
			continue
		}
		r, invalid := b.rules.Parse(message.Delivery{Stream: "REMEDIATION", Sequence: 1, Data: p.Payload})
		if invalid != nil {
			t.Fatalf("%s: %v", p.Payload, invalid)
		}
		if r.ID != p.Message.ID || r.Derived || ids[r.ID] || r.Comment != p.Message.Comment || !strings.EqualFold(r.MachineID, p.Message.MachineID) {
			t.Fatalf("%s: read as %+v", p.Payload, r)
		}
		ids[r.ID] = true
	}
	if err == nil && len(ids) != n {
		t.Fatalf("%d rows checked, %d published", n, len(ids))
	}
}
