package defendersim

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Machine configures a simulated machine, and how it handles actions.
type Machine struct {
	Outcome string // final status of its actions: Succeeded (also ""), Failed, TimeOut, Cancelled, or an unknown one
	Offline bool   // actions stay Pending; registering the machine again without it lets them begin
	// Pending and InProgress override the Lifecycle's; 0: they don't, negative: no time at all.
	Pending, InProgress time.Duration
	DNSName             string // computerDnsName; "": null
	IP                  string // lastIpAddress
	AADDeviceID         string // Entra's id of it, which calls may use too
}

// Action is a machine action as it stands now, times by the API's clock.
type Action struct {
	ID         string    `json:"id"`
	Type       string    `json:"type"`
	MachineID  string    `json:"machineId"`
	Comment    string    `json:"requestorComment"`
	Requestor  string    `json:"requestor"`
	Status     string    `json:"status"`
	Created    time.Time `json:"creationDateTimeUtc"`
	LastUpdate time.Time `json:"lastUpdateDateTimeUtc"`
}

// action is a machine action: what never changes about it, and its fate. The fate is replaced as a whole, so that lists
// are read without a lock.
type action struct {
	id, kind, machineID, requestor, source string

	comment   string
	scopeJSON string    // isolation type; "": null
	fixed     [3]string // what never changes, as JSON: see fix
	created   time.Time
	fate      atomic.Pointer[fate]
}

// fate is when an action begins and ends, as far as that is settled; zero times: never.
type fate struct {
	begins, ends time.Time
	final        string // status from ends on
	cancelledBy  string
	comment      string // of the cancellation
}

func (f *fate) finished(now time.Time) bool { return !f.ends.IsZero() && !now.Before(f.ends) }

func (f *fate) status(now time.Time) string {
	switch {
	case f.finished(now):
		return f.final
	case !f.begins.IsZero() && !now.Before(f.begins):
		return "InProgress"
	}
	return "Pending"
}

func (a *action) status(now time.Time) string { return a.fate.Load().status(now) }

func (a *action) lastUpdate(now time.Time) time.Time {
	f, last := a.fate.Load(), a.created
	for _, at := range []time.Time{f.begins, f.ends} {
		if !at.IsZero() && !now.Before(at) && at.After(last) {
			last = at
		}
	}
	return last
}

func (a *action) snapshot(now time.Time) Action {
	return Action{a.id, a.kind, a.machineID, a.comment, a.requestor, a.status(now), a.created, a.lastUpdate(now)}
}

// machine is a Machine with the actions that were open at the last check.
type machine struct {
	Machine
	known      bool // registered, not only named by a call
	open       []*action
	duplicates int
}

// book holds all actions. ordered is ascending by creation time and never changed in place below its length: a reader
// may keep the slice.
type book struct {
	sync.RWMutex
	machines   map[string]*machine
	registered []string          // ids, in order of registration
	alias      map[string]string // DNS names and Entra's ids; if machines share a name, it is the first one's
	byID       map[string]*action
	ordered    []*action
	dice       *rand.Rand
}

// AddMachine registers a machine, or changes one for future actions.
func (s *Server) AddMachine(id string, m Machine) {
	s.book.Lock()
	defer s.book.Unlock()
	mine := s.book.machine(strings.ToLower(id))
	cameOnline := mine.Offline && !m.Offline
	s.book.register(strings.ToLower(id), mine)
	mine.Machine = m
	maps.DeleteFunc(s.book.alias, func(_, of string) bool { return of == strings.ToLower(id) })
	for _, name := range []string{m.DNSName, m.AADDeviceID} {
		if _, taken := s.book.alias[strings.ToLower(name)]; name != "" && !taken {
			s.book.alias[strings.ToLower(name)] = strings.ToLower(id)
		}
	}
	if !cameOnline {
		return
	}
	now := s.now()
	for _, a := range mine.open {
		if f := a.fate.Load(); f.begins.IsZero() && !f.finished(now) {
			a.fate.Store(s.plan(mine, now))
		}
	}
}

// Restrict adds a RestrictCodeExecution as if an analyst in the console had asked for it.
func (s *Server) Restrict(machineID, comment string) Action {
	return s.Put(Action{Type: "RestrictCodeExecution", MachineID: machineID, Comment: comment})
}

// Put adds an action that no call made, without checking for another open one, and registers the machine. Empty fields
// are filled in: ID, Type (UnrestrictCodeExecution), Requestor (an analyst), Created (now). With a Status the action
// has it from its creation on and keeps it; without, it follows the machine's settings from there.
func (s *Server) Put(a Action) Action {
	s.book.Lock()
	defer s.book.Unlock()
	now := s.now()
	m := s.book.machine(strings.ToLower(a.MachineID))
	s.book.register(strings.ToLower(a.MachineID), m)
	mine := &action{
		id: strings.ToLower(a.ID), kind: or(a.Type, "UnrestrictCodeExecution"), comment: a.Comment, source: "Portal",
		requestor: or(a.Requestor, "analyst@contoso.com"), created: or(a.Created, now).UTC().Truncate(100 * time.Nanosecond),
	}
	f := s.plan(m, mine.created)
	switch a.Status {
	case "":
	case "Pending":
		f = &fate{}
	case "InProgress":
		f = &fate{begins: mine.created}
	default:
		f = &fate{begins: mine.created, ends: mine.created, final: a.Status}
	}
	s.book.add(mine, m, strings.ToLower(a.MachineID), f)
	return mine.snapshot(now)
}

// Actions returns all actions in order of creation, as they stand now.
func (s *Server) Actions() []Action {
	s.book.RLock()
	all := s.book.ordered
	s.book.RUnlock()
	now := s.now()
	out := make([]Action, len(all))
	for i, a := range all {
		out[i] = a.snapshot(now)
	}
	return out
}

// plan is the fate of an action that the machine can start at the given time.
func (s *Server) plan(m *machine, from time.Time) *fate {
	if m.Offline {
		return &fate{}
	}
	begins := from.Add(max(0, or(m.Pending, s.conf().Lifecycle.Pending)))
	ends := begins.Add(max(0, or(m.InProgress, s.conf().Lifecycle.InProgress)))
	return &fate{begins: begins, ends: ends, final: or(m.Outcome, or(s.conf().Outcome, "Succeeded"))}
}

// machine returns the machine's entry, and makes it if there is none. Caller holds the lock.
func (b *book) machine(id string) *machine {
	m := b.machines[id]
	if m == nil {
		m = &machine{}
		b.machines[id] = m
	}
	return m
}

// register makes the machine known. Caller holds the lock.
func (b *book) register(id string, m *machine) {
	if !m.known {
		m.known = true
		b.registered = append(b.registered, id)
	}
}

// add inserts an action at its place in the order. Caller holds the lock.
func (b *book) add(a *action, m *machine, machineID string, f *fate) {
	a.id = or(a.id, newGUID(b.dice.Uint64))
	a.machineID = machineID
	a.fix(m.DNSName)
	a.fate.Store(f)
	b.byID[a.id] = a
	m.open = append(m.open, a)
	if n := len(b.ordered); n == 0 || !a.created.Before(b.ordered[n-1].created) {
		b.ordered = append(b.ordered, a)
		return
	}
	at := sort.Search(len(b.ordered), func(i int) bool { return b.ordered[i].created.After(a.created) })
	b.ordered = slices.Insert(slices.Clone(b.ordered), at, a)
}

// stillOpen drops the machine's finished actions from its open ones. Caller holds the lock.
func (m *machine) stillOpen(now time.Time) []*action {
	m.open = slices.DeleteFunc(m.open, func(a *action) bool { return a.fate.Load().finished(now) })
	return m.open
}
