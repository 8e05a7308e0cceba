package admin

import (
	"encoding/json"
	"fmt"
	"time"

	"example.com/unrestrict-worker/internal/health"
)

// Status is the object of /status and of `worker status --json`.
type Status struct {
	Healthy         bool       `json:"healthy"`
	Paused          *Pause     `json:"paused"`           // null while requests are taken
	WaitingForQuota *QuotaWait `json:"waitingForQuota"`  // null unless requests wait for a free call
	DryRun          *DryRun    `json:"dryRun,omitempty"` // absent if no replica is in dry run
	Queue           Queue      `json:"queue"`
	Budget          []Window   `json:"budget"`
	// AwaitingApproval are requests that wait for somebody to approve them.
	AwaitingApproval int            `json:"awaitingApproval"`
	Followed         int            `json:"followed"`                     // actions not final yet
	DeadLetters      int            `json:"deadLetters"`                  // kept now
	NotKept          int            `json:"deadLettersNotKept,omitempty"` // of unverified messages, beyond the bound
	Results          map[string]int `json:"results"`                      // by outcome
	Counting         bool           `json:"resultsIncomplete,omitempty"`  // they are still being counted
	Version          string         `json:"version"`
	System           System         `json:"system"`
	Replicas         []Replica      `json:"replicas"`
	// Conditions is everything that holds requests or actions up; what stops the worker comes first.
	Conditions []health.Condition `json:"conditions"`
}

// ToDecide is how much waits for somebody to decide.
func (s Status) ToDecide() int { return s.DeadLetters + s.AwaitingApproval }

// Kinds of a Pause.
const (
	KindOperator = "operator" // by hand: it ends by hand, or at Until
	KindFault    = "fault"    // of the system: it ends with its cause
)

// Pause is the reason why no request is taken, and since when.
type Pause struct {
	Kind   string     `json:"kind"`
	Code   string     `json:"code"` // as in the reasons of /readyz
	Reason string     `json:"reason"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until"`
}

// ByOperator reports whether somebody has to resume it.
func (p Pause) ByOperator() bool { return p.Kind == KindOperator }

// QuotaWait is present while all calls that the API allows are used up, except those reserved for look-ups.
type QuotaWait struct {
	NextCallAt time.Time `json:"nextCallAt"`
}

// DryRun counts the replicas that call nothing. Beside live ones they take nothing either.
type DryRun struct {
	Replicas int `json:"replicas"`
	Live     int `json:"live"`
}

// String describes it in one line.
func (d DryRun) String() string {
	if d.Live == 0 {
		return "requests end without the call"
	}
	return fmt.Sprintf("%d of %d replicas call the API; the rest takes nothing beside them", d.Live, d.Live+d.Replicas)
}

// Queue is what waits: Pending not taken yet, InFlight taken and not decided.
type Queue struct {
	Pending       int             `json:"pending"`
	InFlight      int             `json:"inFlight"`
	OldestSeconds float64         `json:"oldestSeconds"` // 0 when nothing waits
	Lanes         map[string]Lane `json:"lanes"`
}

// Lane is what waits in one lane, in hand or not.
type Lane struct {
	Pending       int     `json:"pending"`
	OldestSeconds float64 `json:"oldestSeconds"` // 0 when nothing waits
	// When the last one is expected to be called, and the latest time; zero: nothing waits, or Unavailable is the reason.
	ExpectedAt  time.Time `json:"expectedAt,omitzero"`
	LatestAt    time.Time `json:"latestAt,omitzero"`
	Unavailable string    `json:"unavailable,omitempty"`
}

// Age is how long the oldest has waited.
func (q Queue) Age() time.Duration { return time.Duration(q.OldestSeconds * float64(time.Second)) }

// Window is one sliding window of the call budget. Limit 0 is no limit.
type Window struct {
	Window    string `json:"window"` // minute or hour
	Limit     int    `json:"limit"`
	Remaining int    `json:"remaining"`
	// When the next of the calls that count ages out, and when the last of them has; zero: none counts, or it is not known.
	FreesAt time.Time `json:"freesAt,omitzero"`
	FullAt  time.Time `json:"fullAt,omitzero"`
}

// MarshalJSON writes empty lists and an empty object, never null, so that
// readers need no case for them.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status
	if s.Queue.Lanes == nil {
		s.Queue.Lanes = map[string]Lane{}
	}
	if s.Budget == nil {
		s.Budget = []Window{}
	}
	if s.Results == nil {
		s.Results = map[string]int{}
	}
	if s.Replicas == nil {
		s.Replicas = []Replica{}
	}
	if s.Conditions == nil {
		s.Conditions = []health.Condition{}
	}
	return json.Marshal(plain(s))
}

// Recent is what the page shows beyond Status. Rows come newest first, and the
// page shows the first of each list.
type Recent struct {
	Requests     []ResultRow // of the last 24 hours, and some of those that wait
	Awaiting     []ResultRow // runs that await approval, the longest first
	Failures     []ResultRow // final results of the last 24 hours that are no success
	Batches      []Batch     // that changed in the last 24 hours
	DeadLetters  []DeadLetterRow
	ActionsByAge []Bucket // of the actions followed, youngest first
	PerMinute    []Point  // the last hour, in any order; a minute without results may be left out
	Counting     bool     // Requests, Failures and Batches are still being read
}

// ResultRow is one published result, or what is known of a request that was searched for.
type ResultRow struct {
	RequestID   string
	ClaimedID   string // the id that a message gave itself without owning it
	Run         int
	MachineID   string
	RequestedBy string
	SignedBy    string
	Ticket      string
	Outcome     string // or the state of a request that has none
	State       string // in words, of a request that has not ended; empty: see Outcome
	Code        string // error code, empty if there is none
	Message     string // error message
	Advice      string // what to do, in whole sentences
	Time        time.Time
}

// Batch is the progress of a batch. Each row is counted once.
type Batch struct {
	Name     string
	Outcomes map[string]int // rows that ended
	Followed int            // accepted, not at their end
	Waiting  int            // not called yet
	AtLeast  bool           // more may wait: not all of the queue was looked at
}

// DeadLetterRow is one dead letter that is kept.
type DeadLetterRow struct {
	Sequence  uint64 // in the dead-letter stream
	Attempts  int
	Replay    bool // a replay can help; if not, it is to be dropped in the end
	ResultRow      // MachineID is empty if the request could not be read
}

// Bucket counts the open actions of one age, e.g. "under 1 h".
type Bucket struct {
	Label string
	Count int
}

// Point counts the results of one minute by outcome.
type Point struct {
	Minute time.Time
	Counts map[string]int
}
