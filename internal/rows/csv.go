// Package rows reads many requests from one text, CSV or JSON lines, with the line of each and what is wrong with it.
package rows

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// Row is one request of the input, or what is wrong with it.
type Row struct {
	Line    int // where it begins
	Message Message
	Err     error
}

// CSV reads CSV as RFC 4180 defines it, with commas, semicolons or tabs. The first line names the columns, in any order
// and any case, or is the first of a plain list of machine ids. comment is the comment of all rows, for a file without
// such a column.
func CSV(content io.Reader, comment string) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		buffered := bufio.NewReaderSize(content, headerPeek)
		t := csvTable{comment: comment}
		t.reader = csv.NewReader(buffered)
		head, _ := buffered.Peek(headerPeek)
		t.reader.Comma = separator(head)
		t.reader.FieldsPerRecord = -1 // blank fields at the end are ignored
		t.reader.ReuseRecord = true
		if t.begin(yield) {
			t.rest(yield)
		}
	}
}

// headerPeek is how much is read ahead to find the separator of the columns.
const headerPeek = 1 << 16

// separator returns what separates the columns: the candidate that occurs most often in the first line that is not
// empty, outside quotes.
func separator(head []byte) rune {
	counts := map[byte]int{}
	quoted := false
	for _, c := range bytes.TrimLeft(head, "\r\n") {
		if c == '"' {
			quoted = !quoted
		}
		if c == '\n' && !quoted {
			break
		}
		if !quoted {
			counts[c]++
		}
	}
	best := byte(',')
	for _, c := range []byte(";\t") {
		if counts[c] > counts[best] {
			best = c
		}
	}
	return rune(best)
}

// csvTable is a CSV file while it is read.
type csvTable struct {
	reader  *csv.Reader
	comment string
	columns []string
}

// begin reads the first line. It returns false if there is nothing more to read.
func (t *csvTable) begin(yield func(Row) bool) bool {
	header, err := t.reader.Read()
	if errors.Is(err, io.EOF) {
		yield(Row{Line: 1, Err: errors.New("is empty; the first line names the columns, machineId and comment at least")})
		return false
	}
	if err != nil {
		yield(csvFault(err))
		return false
	}
	line, _ := t.reader.FieldPos(0)
	header = withoutBlanks(header, 0)
	if len(header) == 1 && isMachineID(header[0]) { // a plain list
		t.columns = []string{"machineId"}
		if t.comment == "" {
			yield(Row{Line: line, Err: errors.New("is a machine id: of a plain list give the comment with --comment, else name the columns in the first line")})
			return false
		}
		return yield(t.rowOf(line, header))
	}
	columns, faults := columnsOf(header, t.comment)
	for _, fault := range faults {
		if !yield(Row{Line: line, Err: fault}) {
			return false
		}
	}
	t.columns = columns
	return len(faults) == 0
}

func (t *csvTable) rest(yield func(Row) bool) {
	for {
		record, err := t.reader.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		next := csvFault(err)
		if err == nil {
			if len(withoutBlanks(record, 0)) == 0 {
				continue // spreadsheets leave blank lines, often at the end
			}
			line, _ := t.reader.FieldPos(0)
			next = t.rowOf(line, withoutBlanks(record, len(t.columns)))
		}
		_, goesOn := errors.AsType[*csv.ParseError](err)
		if !yield(next) || err != nil && !goesOn {
			return
		}
	}
}

func (t *csvTable) rowOf(line int, record []string) Row {
	r := Row{Line: line, Message: Message{Comment: t.comment}}
	if len(record) != len(t.columns) {
		name := map[rune]string{',': "comma", ';': "semicolon", '\t': "tab"}[t.reader.Comma]
		r.Err = fmt.Errorf("has more or fewer fields than the first line; a field with a %s in it needs quotes around it", name)
		return r
	}
	r.Err = r.Message.fill(t.columns, record)
	return r
}

// withoutBlanks leaves out blank fields at the end, down to least fields.
func withoutBlanks(record []string, least int) []string {
	for len(record) > least && strings.TrimSpace(record[len(record)-1]) == "" {
		record = record[:len(record)-1]
	}
	return record
}

// csvFault returns what the CSV reader finds wrong, at the line where the row begins.
func csvFault(err error) Row {
	at, ok := errors.AsType[*csv.ParseError](err)
	if !ok {
		return Row{Line: 1, Err: err}
	}
	err = fmt.Errorf(`%w (line %d, column %d); put a field with quotes in it between quotes, and double those within`, at.Err, at.Line, at.Column)
	return Row{Line: at.StartLine, Err: err}
}
