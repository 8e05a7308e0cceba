package check

import (
	"context"
	"time"

	"example.com/unrestrict-worker/internal/broker"
	"example.com/unrestrict-worker/internal/cli/session"
	"example.com/unrestrict-worker/internal/config"
	"example.com/unrestrict-worker/internal/health"
	"example.com/unrestrict-worker/internal/service"
)

// workers reports what holds requests or actions up according to the running workers: what works from here may fail from
// where they run.
func (k *Report) workers(ctx context.Context, conn *broker.Broker) {
	const what = "workers"
	if k.mistaken("budget") {
		k.skip(what, "not asked until the configuration is mended")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	conn.AwaitPresence(ctx)
	o, err := conn.Overview(ctx, config.Windows(k.Env.Settings.Rates))
	switch {
	case broker.IsMissing(err) || err == nil && len(o.Replicas) == 0 && o.PresenceFault == nil:
		k.ok(what, "none is running")
		return
	case err != nil:
		k.fail(what, "what they say can't be read: "+err.Error(), "grant this user the bucket UNRESTRICT_STATE and the streams")
		return
	}
	conditions := service.Conditions(o)
	for _, c := range conditions {
		if text := session.Condition(c, time.Now()); c.Stops && c.Code != health.Paused { // that one is intended
			k.fail(what, text, c.Remedy)
		} else {
			k.warn(what, text, c.Remedy)
		}
	}
	if len(conditions) == 0 {
		k.ok(what, "%s, and nothing holds requests up", session.Count(len(o.Replicas), "worker runs", "workers run"))
	}
}

// room warns of limits under which the broker refuses what the worker must store.
func (k *Report) room(ctx context.Context, conn *broker.Broker) {
	const what, do = "room", "raise the limit with the nats command, or let it keep less"
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	full, nearly, err := conn.Room(ctx)
	switch {
	case err != nil:
		k.warn(what, "the limits can't be read: "+err.Error(), "nothing, if the permissions above are as they should be")
	case len(full)+len(nearly) == 0:
		k.ok(what, "no stream and no account is near a limit at which the broker refuses messages")
	}
	for _, text := range full {
		k.fail(what, text, do)
	}
	for _, text := range nearly {
		k.warn(what, text, do)
	}
}
