package admin

import (
	"fmt"
	"strings"
)

// System identifies the system: what its replicas report, and the streams. A field is empty if no replica reports it. If
// they differ, it has each value, comma-separated.
type System struct {
	API     string  `json:"api"` // the address that is called
	Lab     bool    `json:"lab"` // it is not Microsoft's, on one replica at least
	Tenant  string  `json:"tenant"`
	Account string  `json:"account"` // in NATS
	Broker  string  `json:"broker"`
	Mode    string  `json:"mode"` // live, dryRun or mixed
	Streams Streams `json:"streams"`
}

// Streams are the names of the streams.
type Streams struct {
	Requests    string `json:"requests"`
	Results     string `json:"results"`
	DeadLetters string `json:"deadLetters"`
	Orders      string `json:"orders"`
}

// The modes of a replica, and of all.
const (
	ModeLive   = "live"
	ModeDryRun = "dryRun"
	ModeMixed  = "mixed"
)

// Replica is a process of `worker run`. An older version reports less.
type Replica struct {
	ID         string   `json:"id"`
	Host       string   `json:"host"`
	Version    string   `json:"version"`
	Mode       string   `json:"mode"` // live or dryRun
	API        string   `json:"api"`
	Ready      bool     `json:"ready"`
	Conditions []string `json:"conditions"` // codes
}

// State is the replica's condition in a line.
func (r Replica) State() string {
	state := "ready"
	if !r.Ready {
		state = "takes no requests"
	}
	if len(r.Conditions) > 0 {
		state += ": " + strings.Join(r.Conditions, ", ")
	}
	return state
}

// ModeText is a mode for people.
func ModeText(mode string) string {
	switch mode {
	case ModeDryRun:
		return "dry run"
	case ModeLive:
		return "calls the API"
	}
	return mode
}

// Text is the system in a line: what distinguishes one from another.
func (s System) Text() string {
	if s.API == "" {
		return "not known: no replica says it"
	}
	parts := []string{s.API}
	if s.Tenant != "" {
		parts = append(parts, "tenant "+s.Tenant)
	}
	if s.Account != "" {
		parts = append(parts, "account "+s.Account)
	}
	return strings.Join(parts, ", ")
}

// Text is the names in a line.
func (s Streams) Text() string {
	return strings.Join([]string{s.Requests, s.Results, s.DeadLetters, s.Orders}, ", ")
}

// Warnings returns what makes this anything but a production system; none for production.
func (s Status) Warnings() (all []string) {
	if s.DryRun != nil {
		all = append(all, "DRY RUN: "+s.DryRun.String())
	}
	if s.System.Lab {
		all = append(all, LabText(s.System.API))
	}
	return all
}

// LabText is the warning that calls do not go to Microsoft.
func LabText(api string) string {
	return fmt.Sprintf("LAB: calls go to %s, which is not Microsoft's address but a simulator's or a proxy's", api)
}
