package broker

import (
	"regexp"
	"sync"

	"go.uber.org/zap"
)

// replies remembers for whom results went to subjects that requests had named. A message that the broker refuses was sent
// by then, and its refusal names the subject alone.
type replies struct {
	mu    sync.Mutex
	sent  map[string]string // subject to the id of the latest request
	order []string          // of the subjects, the oldest first
}

// mostReplies bounds what is remembered: a refusal comes within the time of a round trip.
const mostReplies = 256

func (r *replies) add(subject, requestID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent == nil {
		r.sent = map[string]string{}
	}
	if _, known := r.sent[subject]; !known {
		r.order = append(r.order, subject)
	}
	r.sent[subject] = requestID
	if len(r.order) > mostReplies {
		delete(r.sent, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *replies) of(subject string) (requestID string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	requestID, known = r.sent[subject]
	return requestID, known
}

// deniedPublish finds the subject in the server's words, which are all that it says.
var deniedPublish = regexp.MustCompile(`(?i)Permissions Violation for Publish to "([^"]+)"`)

// replyDenied tells of a result that a request's replyTo did not get.
func (b *Broker) replyDenied(err error) bool {
	m := deniedPublish.FindStringSubmatch(err.Error())
	if m == nil {
		return false
	}
	requestID, known := b.replies.of(m[1])
	if known {
		b.log.Warn("a result did not reach its request's replyTo: the broker denies the worker to publish there; allow it, or let the requests name another subject",
			zap.String("request_id", requestID), zap.String("reply_to", m[1]))
	}
	return known
}
