package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/remediation"
)

// Run shows results, the oldest first, until the present or for ever.
func (c *ResultsCmd) Run(ctx context.Context, env *Env) error {
	conn, err := dialForCommand(ctx, env)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer closeAfterCommand(conn)
	o := broker.FollowOptions{ToPresent: !c.Follow}
	if c.Since > 0 {
		o.Since = time.Now().Add(-c.Since)
	}
	log, _ := env.Logger()
	return followResults(ctx, conn, o, func(m broker.Message) error {
		var r remediation.Result
		if err := json.Unmarshal(m.Data, &r); err != nil {
			log.Warn("no result", zap.String("stream", conn.Names().ResultsStream), zap.Uint64("sequence", m.Sequence), zap.Error(err))
			return nil
		}
		if !c.asksFor(r) {
			return nil
		}
		line := []byte(resultLineOn(time.Now(), m.Time, r))
		if c.JSON {
			line = oneLineJSON(m.Data)
		}
		_, err := env.Stdout.Write(append(line, '\n'))
		return err
	})
}

// followResults is Follow, with what to do where no worker has made the stream yet.
func followResults(ctx context.Context, b *broker.Broker, o broker.FollowOptions, fn func(broker.Message) error) error {
	return adviseMissing(b.Follow(ctx, b.Names().ResultsStream, o, fn))
}

func adviseMissing(err error) error {
	if broker.IsMissing(err) {
		return fmt.Errorf("%w: start `worker run`, which creates it, or check WORKER_RESULTS_STREAM", err)
	}
	return err
}

func (c *ResultsCmd) asksFor(r remediation.Result) bool {
	return (c.Batch == "" || r.Batch == c.Batch) &&
		(c.Machine == "" || strings.EqualFold(r.MachineID, c.Machine)) &&
		(len(c.Outcome) == 0 || slices.Contains(c.Outcome, r.Outcome))
}

// oneLineJSON takes out line ends, which metadata may have brought along. In JSON they are never part of a value.
func oneLineJSON(data []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, data)
}

// resultLineOn is resultLine with its date, where that is not today.
func resultLineOn(now, at time.Time, r remediation.Result) string {
	line := resultLine(at, r)
	const day = "2006-01-02"
	if date := at.Local().Format(day); date != now.Local().Format(day) {
		line = date + " " + line
	}
	return line
}
