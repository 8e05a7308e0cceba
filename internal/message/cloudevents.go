package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Content is what a message holds inside its CloudEvent, if it is one.
type Content struct {
	object  []member // the request object
	eventID string   // SOURCE#ID, "" without CloudEvents
	trace   Trace    // the event's own, unchecked
	inBoth  bool     // an event in binary mode whose payload is an event too
}

// openMessage finds the request object in a message: in a CloudEvent's data in structured mode (a content type of
// application/cloudevents, or an object with specversion), otherwise in the body, with the attributes of a CloudEvent in
// binary mode (ce- headers) or none. The NATS binding goes by the content type alone, but not all senders keep to it. With
// an error it returns what could be read.
func openMessage(d Delivery) (Content, error) {
	contentType := mediaType(d.Header.Get("Content-Type"))
	if format, ok := strings.CutPrefix(contentType, "application/cloudevents"); ok {
		if format != "" && format != "+json" {
			return Content{}, errors.New("header Content-Type: only application/cloudevents+json is taken; send each event as a message of its own")
		}
		object, err := readObject(d.Data)
		return openStructured(object, payloadFault(err))
	}
	object, err := readObject(d.Data)
	err = payloadFault(err)
	event := slices.ContainsFunc(object, func(m member) bool { return m.name == "specversion" })
	switch {
	case isBinary(d.Header):
		c, err := openBinary(d.Header, contentType, object, err)
		c.inBoth = event && slices.ContainsFunc(object, func(m member) bool { return m.name == "data" || m.name == "data_base64" })
		return c, err
	case event:
		return openStructured(object, err)
	}
	return Content{object: object}, err
}

func payloadFault(err error) error {
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	return nil
}

func openStructured(envelope []member, err error) (Content, error) {
	attributes := map[string]string{}
	var data, encoded []byte
	faults := []error{err}
	for _, m := range envelope {
		switch m.name {
		case "data":
			data = m.value
		case "data_base64":
			encoded = m.value
		case "specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype", "traceparent", "tracestate":
			var value *string
			if err := json.Unmarshal(m.value, &value); err != nil {
				faults = append(faults, fmt.Errorf("CloudEvent: %s: is %s; give a string", m.name, jsonKind(m.value)))
			} else if value != nil {
				attributes[m.name] = *value
			}
		}
	}
	c := fromAttributes(attributes)
	if err == nil {
		faults = append(faults, checkAttributes(attributes, attributes["datacontenttype"]))
	}
	data, dataFault := eventData(data, encoded)
	if dataFault == nil {
		c.object, dataFault = readObject(data)
	}
	if err == nil && dataFault != nil {
		faults = append(faults, fmt.Errorf("CloudEvent: data: %w", dataFault))
	}
	return c, joined(faults...)
}

func eventData(data, encoded []byte) ([]byte, error) {
	switch {
	case data == nil && encoded == nil:
		return nil, errors.New("is missing; put the request there")
	case data != nil && encoded != nil:
		return nil, errors.New("comes beside data_base64; give one of them")
	case encoded == nil:
		return data, nil
	}
	var decoded []byte // encoding/json reads base64 into bytes
	if encoded[0] != '"' || json.Unmarshal(encoded, &decoded) != nil {
		return nil, errors.New("is not valid base64 in data_base64; encode it again")
	}
	return decoded, nil
}

// isBinary reports whether the headers mark an event. Any of the four required attributes does, so that a message that lacks
// another one is refused instead of losing its id.
func isBinary(h Header) bool {
	for name := range h {
		if hasPrefix(name, "ce-") {
			switch strings.ToLower(name[3:]) {
			case "specversion", "id", "source", "type":
				return true
			}
		}
	}
	return false
}

func openBinary(h Header, contentType string, object []member, err error) (Content, error) {
	attributes := map[string]string{}
	faults := []error{err}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if !hasPrefix(name, "ce-") {
			continue
		}
		attribute := strings.ToLower(name[3:])
		for _, raw := range h[name] {
			value := percentDecode(raw)
			if other, twice := attributes[attribute]; twice && other != value {
				faults = append(faults, fmt.Errorf("CloudEvent: header ce-%s: comes twice; send it once", attribute))
			}
			if !utf8.ValidString(value) {
				faults = append(faults, fmt.Errorf("CloudEvent: header ce-%s: is not UTF-8 when percent-decoded; encode it as UTF-8", attribute))
			}
			attributes[attribute] = value
		}
	}
	dataType, ok := attributes["datacontenttype"]
	if !ok {
		dataType = contentType
	}
	c := fromAttributes(attributes)
	c.object = object
	return c, joined(append(faults, checkAttributes(attributes, dataType))...)
}

func fromAttributes(a map[string]string) Content {
	c := Content{trace: Trace{Parent: a["traceparent"], State: a["tracestate"]}}
	if a["source"] != "" && a["id"] != "" {
		c.eventID = a["source"] + "#" + a["id"]
	}
	return c
}

// checkAttributes checks the attributes against CloudEvents 1.0.
func checkAttributes(a map[string]string, dataType string) error {
	if v, ok := a["specversion"]; !ok || v != event.CloudEventsVersionV1 {
		return errors.New("CloudEvent: specversion: only 1.0 is taken; add it, or send the event as 1.0")
	}
	e := event.New(event.CloudEventsVersionV1)
	e.SetID(a["id"])
	e.SetSource(strings.TrimSpace(a["source"]))
	e.SetType(a["type"])
	e.SetSubject(a["subject"])
	e.SetDataSchema(a["dataschema"])
	e.SetDataContentType(dataType)
	var faults []error
	var broken event.ValidationError
	if errors.As(e.Validate(), &broken) {
		for _, name := range slices.Sorted(maps.Keys(broken)) {
			faults = append(faults, fmt.Errorf("CloudEvent: %s: %w", name, broken[name]))
		}
	}
	if _, err := parseInstant(a["time"]); a["time"] != "" && err != nil {
		faults = append(faults, fmt.Errorf("CloudEvent: time: %w", err))
	}
	if t := mediaType(dataType); dataType != "" && broken["datacontenttype"] == nil && !strings.HasSuffix(t, "/json") && !strings.HasSuffix(t, "+json") {
		faults = append(faults, errors.New("CloudEvent: datacontenttype: is not JSON; send the request as application/json"))
	}
	return joined(faults...)
}

// mediaType is the type without parameters, in lower case. If it can't be parsed, it is cut at the first semicolon, so that
// a mistake in a parameter does not hide an event.
func mediaType(contentType string) string {
	if t, _, err := mime.ParseMediaType(contentType); err == nil {
		return t
	}
	t, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(t))
}
