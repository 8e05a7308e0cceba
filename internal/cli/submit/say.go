package submit

import (
	"fmt"
	"strings"

	"example.com/unrestrict-worker/internal/cli/session"
)

// shownRepeated is how many machines that are there twice are named.
const shownRepeated = 10

// sayRepeated names the machines that more than one row is about. That is no mistake, but rarely meant: each row is
// carried out, one after the other.
func (s *Submission) sayRepeated() {
	machines := s.Bulk.repeated
	if len(machines) == 0 {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s there more than once, and each row is a request of its own:\n", session.Plain(s.Bulk.name), session.Count(len(machines), "machine is", "machines are"))
	for _, m := range machines[:min(len(machines), shownRepeated)] {
		fmt.Fprintf(&b, "  %s  lines %s\n", m.machine, joined(m.lines))
	}
	if n := len(machines) - shownRepeated; n > 0 {
		fmt.Fprintf(&b, "  and %d more\n", n)
	}
	fmt.Fprint(s.env.Stderr, b.String())
}

// joined are the numbers in words, the first of them where there are many.
func joined(lines []int) string {
	var words []string
	for i, n := range lines {
		if i == shownRepeated {
			words = append(words, "...")
			break
		}
		words = append(words, fmt.Sprint(n))
	}
	return strings.Join(words, ", ")
}

func (s *Submission) sayPublished() {
	if s.Bulk.Single != "" {
		fmt.Fprintf(s.env.Stdout, "Published as %s.\n", session.Plain(s.Bulk.Single))
		return
	}
	fmt.Fprintf(s.env.Stdout, "%s published, %d were already there. Batch %s.\n", session.Count(s.Stored-s.Duplicates, "request", "requests"), s.Duplicates, session.Plain(s.Bulk.Batch))
	if s.forgotten > 0 {
		fmt.Fprintf(s.env.Stdout, "Of those published %s queued before, which the broker has forgotten: its duplicate window is over, or it was restarted. The worker knows them by their ids and carries none out twice.\n",
			session.Count(s.forgotten, "was", "were"))
	}
}

// sayHowToGoOn is for who does not wait. JetStream rebuilds its memory of message ids from what is still stored, so that
// after a restart it has forgotten the rows that were taken; of that nothing is known here.
func (s *Submission) sayHowToGoOn() {
	if s.Bulk.Single != "" {
		fmt.Fprintf(s.env.Stdout, "What becomes of it: worker why %s\n", session.ShellQuote(s.Bulk.Single))
		return
	}
	fmt.Fprintf(s.env.Stdout, "What becomes of %s: worker results --batch %s\n", session.Pronoun(s.rows), session.ShellQuote(s.Bulk.Batch))
	if s.Stored > s.Duplicates {
		fmt.Fprintln(s.env.Stdout, `The same command again queues no row twice while the broker remembers it: for a day, less if the broker
is restarted or others made its stream with a shorter duplicate window. No row is carried out twice.`)
	}
}
