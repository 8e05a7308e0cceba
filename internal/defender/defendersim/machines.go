package defendersim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// device is a machine as the API shows it.
type device struct {
	id string
	Machine
}

func (d *device) health() string {
	if d.Offline {
		return "Inactive"
	}
	return "Active"
}

// osPlatform and onboarding are the same for all machines.
const osPlatform, onboarding = "Windows11", "Onboarded"

// machineSchema is Machine ([doc] machine.md), and some of the properties that $filter supports ([doc]
// get-machines.md).
var machineSchema = schema[*device]{
	set: "Machines", kind: "Machine", names: []string{
		"id", "computerDnsName", "firstSeen", "lastSeen", "osPlatform", "osVersion", "osProcessor", "version", "lastIpAddress",
		"lastExternalIpAddress", "agentVersion", "osBuild", "healthStatus", "deviceValue", "rbacGroupId", "rbacGroupName",
		"riskScore", "exposureLevel", "isAadJoined", "aadDeviceId", "machineTags", "onboardingStatus", "ipAddresses",
	}, properties: []property[*device]{
		{name: "id", kind: edmString, text: func(d *device, _ time.Time) string { return d.id }},
		{name: "computerDnsName", kind: edmString, text: func(d *device, _ time.Time) string { return d.DNSName }},
		{name: "lastIpAddress", kind: edmString, text: func(d *device, _ time.Time) string { return d.IP }},
		{name: "healthStatus", kind: edmString, text: func(d *device, _ time.Time) string { return d.health() }},
		{name: "onboardingStatus", kind: edmString, text: func(*device, time.Time) string { return onboarding }},
		{name: "osPlatform", kind: edmString, text: func(*device, time.Time) string { return osPlatform }},
	},
}

// resolve returns the id of a machine that a call names otherwise: by Entra's device id, as a client that ships does
// ([client]), or, with byName, by its DNS name ([doc] get-machine-by-id.md). Anything else is returned unchanged.
func (b *book) resolve(part string, byName bool) string {
	b.RLock()
	defer b.RUnlock()
	if id, found := b.alias[part]; found && (byName || guid.MatchString(part)) {
		return id
	}
	return part
}

// devices are the registered machines, in order of registration.
func (s *Server) devices() (all []*device) {
	s.book.RLock()
	defer s.book.RUnlock()
	for _, id := range s.book.registered {
		all = append(all, &device{id, s.book.machines[id].Machine})
	}
	return all
}

func (s *Server) listMachines(q *request) reply { return s.answerMachines(q, s.devices()) }

func (s *Server) answerMachines(q *request, found []*device) reply {
	now := s.now()
	return answerList(s, q, &machineSchema, found, now, func(*device) bool { return true },
		func(b []byte, d *device) []byte { return append(b, s.entity(d, "", now)...) })
}

var byIP = regexp.MustCompile(`^findbyip\(ip='([^']*)',timestamp=([^)]*)\)$`)

// findByIP: machines seen with the address within 15 minutes of the time, which must be in the past 30 days ([doc]
// find-machines-by-ip.md). Here they are seen all the time. The texts are [composed].
func (s *Server) findByIP(q *request) reply {
	_, call, _ := strings.Cut(strings.ToLower(q.raw.URL.Path), "/machines/")
	argument := byIP.FindStringSubmatch(strings.Trim(call, "/"))
	if argument == nil {
		return failure(http.StatusBadRequest, "BadRequest", "findbyip needs ip='...' and timestamp=...")
	}
	at, is := parseTime(strings.ToUpper(argument[2]))
	if now := s.now(); !is || at.After(now) || at.Before(now.AddDate(0, 0, -30)) {
		return failure(http.StatusBadRequest, "BadRequest", "The timestamp must be in the past 30 days")
	}
	var found []*device
	for _, d := range s.devices() {
		if d.IP == argument[1] {
			found = append(found, d)
		}
	}
	return s.answerMachines(q, found)
}

func (s *Server) getMachine(q *request) reply {
	s.book.RLock()
	defer s.book.RUnlock()
	if !s.exists(q.op.machine) {
		return machineNotFound(q)
	}
	d := &device{id: q.op.machine}
	if known := s.book.machines[d.id]; known != nil {
		d.Machine = known.Machine
	}
	return reply{status: http.StatusOK, body: s.entity(d, q.context("Machines/$entity"), s.now())}
}

func machineNotFound(q *request) reply {
	return failure(http.StatusNotFound, "ResourceNotFound", "Machine "+q.op.machine+" was not found")
}

// entity renders a machine with the properties that its page names. Whether it is restricted is not among them.
func (s *Server) entity(d *device, context string, now time.Time) []byte {
	text := func(v string) any { // null where nothing is known
		if v == "" {
			return nil
		}
		return v
	}
	addresses := []any{}
	if d.IP != "" {
		addresses = append(addresses, map[string]any{"ipAddress": d.IP, "macAddress": nil, "type": "Ethernet", "operationalStatus": "Up"})
	}
	values := map[string]any{
		"id": d.id, "computerDnsName": text(d.DNSName), "firstSeen": wire(s.start), "lastSeen": wire(now), "osPlatform": osPlatform,
		"osProcessor": "x64", "version": "24H2", "lastIpAddress": text(d.IP), "osBuild": 26100, "healthStatus": d.health(),
		"deviceValue": "Normal", "rbacGroupId": 0, "riskScore": "None", "exposureLevel": "Low", "isAadJoined": d.AADDeviceID != "",
		"aadDeviceId": text(d.AADDeviceID), "machineTags": []string{}, "onboardingStatus": onboarding, "ipAddresses": addresses,
	}
	b := []byte{'{'}
	if context != "" {
		b = fmt.Appendf(b, `"@odata.context":"%s",`, context)
	}
	for i, name := range machineSchema.names {
		if i > 0 {
			b = append(b, ',')
		}
		value, _ := json.Marshal(values[name]) // only ever plain values
		b = fmt.Appendf(b, `"%s":%s`, name, value)
	}
	return append(b, '}')
}

// wire is a time as it is sent, without the quotes.
func wire(t time.Time) string { return strings.Trim(t.UTC().Format(wireTime), `"`) }
