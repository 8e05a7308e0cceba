package submit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/message"
	"example.com/unrestrict-worker/internal/rows"
)

// input is what is to be submitted, in a private copy: it is read twice, first to check it and then to publish it, and
// must not change in between. Its owner closes it.
type input struct {
	name   string // as errors name it
	digest string // of the content
	jsonl  bool   // if false, CSV
	copy   *os.File
}

// openInput copies a file, or standard input for "-". Mistakes about the file are bad input.
func openInput(ctx context.Context, path string, stdin io.Reader) (*input, error) {
	in, source := &input{name: path}, stdin
	if path == "-" {
		in.name = "standard input"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, config.BadInput("--file: %w; give the path of a file that can be read, or - for standard input", err)
		}
		defer f.Close()
		source = f
	}
	var err error
	if in.copy, err = os.CreateTemp("", "worker-submit-"); err != nil {
		return nil, fmt.Errorf("copy %s: %w", in.name, err)
	}
	_ = os.Remove(in.copy.Name()) // where a file can be removed while it is open, nothing is left behind, even after a crash
	if err = in.read(ctx, source); err == nil {
		err = in.decode()
	}
	if err == nil {
		err = in.detect(path)
	}
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// read returns when ctx ends. A read from a terminal or a pipe can't be interrupted: that goes on until the process ends.
func (in *input) read(ctx context.Context, source io.Reader) error {
	sum := sha256.New()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.MultiWriter(in.copy, sum), source)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return config.BadInput("read %s: %w", in.name, err)
		}
	case <-ctx.Done():
		return fmt.Errorf("read %s: %w", in.name, context.Cause(ctx))
	}
	in.digest = hex.EncodeToString(sum.Sum(nil)[:8])
	return nil
}

// decode converts UTF-16 with a byte order mark, as Excel writes it, to UTF-8, and rejects what else can't be read.
func (in *input) decode() error {
	content, err := in.content()
	if err != nil {
		return err
	}
	head, _ := content.Peek(4)
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return config.BadInput("%s: is a workbook or another archive; save the sheet as CSV", in.name)
	case bytes.HasPrefix(head, []byte("\xff\xfe")):
		return in.fromUTF16(content, binary.LittleEndian)
	case bytes.HasPrefix(head, []byte("\xfe\xff")):
		return in.fromUTF16(content, binary.BigEndian)
	case bytes.IndexByte(head, 0) >= 0:
		return config.BadInput("%s: is no UTF-8, and no UTF-16 with a byte order mark; save the file as CSV UTF-8", in.name)
	}
	return nil
}

func (in *input) fromUTF16(content io.Reader, order binary.ByteOrder) error {
	data, err := io.ReadAll(content)
	if err != nil {
		return fmt.Errorf("read %s: %w", in.name, err)
	}
	var units []uint16
	for i := range len(data) / 2 {
		units = append(units, order.Uint16(data[2*i:]))
	}
	text := string(utf16.Decode(units))
	if len(data)%2 != 0 || strings.ContainsAny(text, "\x00\ufffd") {
		return config.BadInput("%s: is UTF-16 that was cut or damaged; save the file as CSV UTF-8", in.name)
	}
	if err := in.copy.Truncate(0); err != nil {
		return fmt.Errorf("copy %s: %w", in.name, err)
	}
	if _, err := in.copy.WriteAt([]byte(text), 0); err != nil {
		return fmt.Errorf("copy %s: %w", in.name, err)
	}
	return nil
}

// detect distinguishes JSONL from CSV, by the file's name or else by how it begins.
func (in *input) detect(path string) error {
	content, err := in.content()
	if err != nil {
		return err
	}
	head, _ := content.Peek(512)
	first := bytes.TrimLeft(head, " \t\r\n")
	switch ext := strings.ToLower(filepath.Ext(path)); {
	case bytes.HasPrefix(first, []byte("[")):
		return config.BadInput("%s, line 1: is a JSON array; write one object a line (jq -c '.[]' does that)", in.name)
	case ext == ".jsonl" || ext == ".ndjson":
		in.jsonl = true
	case ext != ".csv":
		in.jsonl = bytes.HasPrefix(first, []byte("{"))
	}
	return nil
}

// content returns the copy from its beginning, without a byte order mark.
func (in *input) content() (*bufio.Reader, error) {
	if _, err := in.copy.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read %s: %w", in.name, err)
	}
	r := bufio.NewReader(in.copy)
	if mark, _ := r.Peek(3); string(mark) == "\ufeff" {
		_, _ = r.Discard(3)
	}
	return r, nil
}

// rows reads the copy once more. comment is the comment of all rows, "" if they have their own.
func (in *input) rows(comment string, rules message.Rules) iter.Seq[rows.Row] {
	return func(yield func(rows.Row) bool) {
		content, err := in.content()
		switch {
		case err != nil:
			yield(rows.Row{Line: 1, Err: err})
		case in.jsonl:
			rows.JSON(content, comment, rules)(yield)
		default:
			rows.CSV(content, comment)(yield)
		}
	}
}

func (in *input) close() {
	_ = in.copy.Close()
	_ = os.Remove(in.copy.Name())
}
