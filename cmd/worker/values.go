package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checker turns the text of settings into values. Each of its methods returns
// the zero value where it notes a mistake.
type checker struct {
	settings map[*string]*setting // by field
	mistakes []Mistake
}

// mistake notes what to do about a setting that is wrong.
func (c *checker) mistake(field *string, advice string) {
	s := c.settings[field]
	c.mistakes = append(c.mistakes, Mistake{Name: s.env, Group: s.group(), Text: s.names() + " " + s.describe() + ": " + advice})
}

func (c *checker) notEmpty(field *string) string {
	if strings.TrimSpace(*field) == "" {
		c.mistake(field, "give a value, such as "+c.settings[field].fallback())
		return ""
	}
	return *field
}

func (c *checker) integer(field *string, low, high int) int {
	n, err := strconv.Atoi(*field)
	if err != nil || n < low || n > high {
		c.mistake(field, fmt.Sprintf("give a whole number from %d to %d", low, high))
		return 0
	}
	return n
}

func (c *checker) number(field *string, low, high float64) float64 {
	n, err := strconv.ParseFloat(*field, 64)
	if err != nil || math.IsNaN(n) || n < low || n > high {
		c.mistake(field, fmt.Sprintf("give a number from %v to %v", low, high))
		return 0
	}
	return n
}

func (c *checker) duration(field *string, least time.Duration) time.Duration {
	d, err := time.ParseDuration(*field)
	if err != nil {
		advice := "give a duration, a number with its unit such as 500ms, 30s, 5m or 24h"
		if _, err := strconv.Atoi(*field); err == nil {
			advice += "; " + *field + " seconds are " + *field + "s"
		} else if d, err := typedDuration(*field); err == nil {
			advice += "; " + *field + " is " + strings.TrimSuffix(d.String(), "0m0s")
		}
		c.mistake(field, advice)
		return 0
	}
	if d < least {
		c.mistake(field, "give a duration of at least "+least.String())
		return 0
	}
	return d
}

func (c *checker) toggle(field *string) bool {
	on, err := strconv.ParseBool(strings.ToLower(*field))
	if err != nil {
		c.mistake(field, "give true or false")
	}
	return on
}

func (c *checker) oneOf(field *string) string {
	value, s := strings.ToLower(*field), c.settings[field]
	if slices.Contains(s.oneOf(), value) || value == "" && !s.flag.HasDefault {
		return value
	}
	c.mistake(field, "give one of "+strings.Join(s.oneOf(), ", ")+didYouMean(value, s.oneOf()))
	return ""
}

// file checks that a file is there and can be read; "" means not given.
func (c *checker) file(field *string) string {
	if *field == "" {
		return ""
	}
	if _, err := readSmall(*field); err != nil {
		c.mistake(field, err.Error()+"; give the path of a file that this program may read")
		return ""
	}
	return *field
}

// secret takes a secret from its setting or from its file, not from both.
func (c *checker) secret(field, file *string) Secret {
	if *field != "" && *file != "" {
		c.mistake(field, "and so is "+c.settings[file].env+"; give one of the two")
		return Secret{}
	}
	if *file == "" {
		return Secret{value: *field}
	}
	data, err := readSmall(*file)
	if err != nil {
		c.mistake(file, err.Error()+"; give the path of a file that this program may read")
		return Secret{}
	}
	value := strings.TrimRight(string(data), "\r\n")
	if value == "" {
		c.mistake(file, "that file is empty; write the secret into it")
	}
	return Secret{value: value}
}

// maxFile bounds what is read of a file that a setting names.
const maxFile = 1 << 20

// readSmall reads a file; its errors leave out the path, which the mistake names.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return nil, fmt.Errorf("it is a folder")
	}
	if err == nil && info.Size() > maxFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	data, err := os.ReadFile(path)
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return nil, pathErr.Err
	}
	return data, err
}
