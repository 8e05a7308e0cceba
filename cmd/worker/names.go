package main

import (
	"strings"
	"unicode"

	"example.com/unrestrict-worker/internal/remediation"
)

// subject checks a subject to publish on: no wildcards, no empty tokens, not
// one of NATS's own.
func (c *checker) subject(field *string) string {
	bad := *field == "" || strings.ContainsFunc(*field, unprintable) || strings.ContainsAny(*field, "*>")
	for token := range strings.SplitSeq(*field, ".") {
		bad = bad || token == ""
	}
	if bad || strings.HasPrefix(*field, "$") || strings.HasPrefix(*field, "_") {
		c.mistake(field, "give a subject without spaces or wildcards that does not start with $ or _, such as "+c.settings[field].fallback())
		return ""
	}
	return *field
}

// name checks the name of a stream or consumer.
func (c *checker) name(field *string) string {
	if *field == "" || len(*field) > 255 || strings.ContainsFunc(*field, unprintable) || strings.ContainsAny(*field, `.*>/\`) {
		c.mistake(field, `give a name without spaces and . * > / \, such as `+c.settings[field].fallback())
		return ""
	}
	return *field
}

// streamName is name for a stream, which must not be one of the worker's own.
func (c *checker) streamName(field *string) string {
	if strings.HasPrefix(*field, "UNRESTRICT_") || strings.HasPrefix(*field, "KV_") || strings.HasPrefix(*field, "OBJ_") {
		c.mistake(field, "UNRESTRICT_..., KV_... and OBJ_... are taken; give a name such as "+c.settings[field].fallback())
		return ""
	}
	return c.name(field)
}

func unprintable(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

// signers reads public nkeys from the setting, or from its file, which is then looked at again whenever it changes.
func (c *checker) signers(field, file *string) *remediation.Signers {
	switch {
	case *file != "" && *field != "":
		c.mistake(field, "and so is "+c.settings[file].env+"; give one of the two")
	case *file != "":
		s, err := remediation.SignersFile(*file)
		if err != nil {
			c.mistake(file, err.Error()+"; give a file with a public nkey (such as U... of `nk -gen user -pubout`) and a name a line")
		}
		return s
	default:
		s, err := remediation.ParseSigners(*field)
		if err != nil {
			c.mistake(field, err.Error()+"; give public nkeys (such as U... of `nk -gen user -pubout`), each once, bare or as NAME=KEY, comma-separated")
		}
		return s
	}
	return nil
}

// policy reads what each signer may ask; the file is looked at again whenever it changes. Each mistake in it is one of
// the setting's.
func (c *checker) policy(file *string, signers *remediation.Signers) *remediation.Policy {
	if *file == "" {
		return nil
	}
	p, err := remediation.LoadPolicy(*file, signers)
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		for _, m := range all.Unwrap() {
			c.mistake(file, m.Error())
		}
	} else if err != nil {
		c.mistake(file, err.Error())
	}
	return p
}
