package submit

import (
	"fmt"

	"example.com/unrestrict-worker/internal/cli/session"
)

func (s *Submission) printRepeated() {
	if n := s.Bulk.repeated; n > 0 {
		fmt.Fprintf(s.env.Stderr, "%s: %s about a machine that an earlier row names too (%s). Each row is a request of its own.\n",
			session.Plain(s.Bulk.name), session.Count(n, "row is", "rows are"), s.Bulk.repeat)
	}
}

func (s *Submission) printPublished() {
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

// printHowToGoOn is for a command without --wait. After a restart JetStream rebuilds its message ids from what is still
// stored, and so has forgotten the rows that were taken. This command can't know whether that happened.
func (s *Submission) printHowToGoOn() {
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
