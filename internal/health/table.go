package health

import "slices"

// Row is what is known of a code, on whichever replica. docs/runbook.md's tables are generated from it.
type Row struct {
	Code   string
	Stops  bool   // by default; a part may decide otherwise for one condition
	Note   bool   // nobody needs to do anything about it
	Holds  Held   // what it holds up
	Means  string // a sentence without its full stop
	Remedy string // what to do
	Ends   string // what ends it
}

// Held is what a condition holds up.
type Held int

// Both is the zero value, so that a row without Holds is shown for every request that waits.
const (
	Both      Held = iota
	Calls          // requests that are not called yet; accepted actions are followed all the same
	Following      // actions that were accepted
	Nothing        // no request by itself
)

// Waiting reports whether it holds up a request that is not called yet, or whose call's fate is not known.
func (h Held) Waiting() bool { return h == Both || h == Calls }

// Accepted reports whether it holds up following an action.
func (h Held) Accepted() bool { return h == Both || h == Following }

// Lookup is the row of a code. A code that the table does not have is the API's own name for a fault of the system.
func Lookup(code string) Row {
	if i := slices.IndexFunc(table, func(r Row) bool { return r.Code == code }); i >= 0 {
		return table[i]
	}
	row := Lookup(Other)
	row.Code = code
	return row
}

// Table is every row: first what stops a replica, then what impairs it.
func Table() []Row { return slices.Clone(table) }

const probe = "with an answer to a probe, one request at a time, 15 s apart at most"

var table = []Row{
	{
		Code: Broker, Stops: true,
		Means:  "There is no connection to the broker, or not yet; streams without a leader count too",
		Remedy: "start the broker; check `NATS_URL`, the network and the servers' logs. If the broker refuses the sign-in at the start, the worker exits with 1 instead",
		Ends:   "when the connection is made",
	},
	{
		Code: Paused, Stops: true, Holds: Calls,
		Means:  "Somebody ran `worker pause`",
		Remedy: "read the reason; `worker resume` ends it",
		Ends:   "with `worker resume`, or at the time that was given",
	},
	{
		Code: Token, Stops: true,
		Means:  "There is no token for the API",
		Remedy: "the message says why: `DEFENDER_TOKEN_FILE` missing or stale (`worker simulate` writes a new one at each start), or, of the identity provider, an expired secret or certificate, a wrong tenant or client, its host unreachable. A new secret needs a restart if it is set as a variable",
		Ends:   "with a token, asked for every 2 s",
	},
	{
		Code: Store, Stops: true,
		Means:  "The broker does not store what must be durable before a call is made",
		Remedy: "disk full, stream limits reached, no quorum, a missing permission: see the broker's log; the embedded broker goes on by itself once its disk can be written again",
		Ends:   "with the first write that is acknowledged",
	},
	{
		Code: SlowBroker, Stops: true, Holds: Calls,
		Means:  "The broker takes so long to store what must be durable before a call that the grant for the call is too old by then",
		Remedy: "its disk (`SyncAlways` waits for it), its load, and the round trip to it: below 100 ms all is well, from two thirds of a second on no call can be made",
		Ends:   probe,
	},
	{
		Code: Unreachable, Stops: true,
		Means:  "Nothing answers at the API: name resolution, connection or TLS handshake fails",
		Remedy: "check `DEFENDER_API_URL`, DNS, proxy (`HTTPS_PROXY`), firewall and the trusted certificates",
		Ends:   probe,
	},
	{
		Code: UnclearAnswers, Stops: true, Holds: Calls,
		Means:  "Three calls or look-ups in a row, for different machines, ended without a clear answer: 5xx, time-outs, cut connections. With fewer machines, if none was served since, requests are still taken, and `/readyz` stays 200",
		Remedy: "see whether Defender has an incident and what the proxy does. Every such call is looked up before it is made again",
		Ends:   probe,
	},
	{
		Code: Unauthorized, Stops: true,
		Means:  "The API refuses a fresh token (`http401` where it gives no code)",
		Remedy: "token of the wrong tenant, cloud or audience: `DEFENDER_CLOUD`, `DEFENDER_SCOPE`",
		Ends:   probe,
	},
	{
		Code: Forbidden, Stops: true, Holds: Calls,
		Means:  "A permission is missing, or the API has accepted no call with this token yet",
		Remedy: "grant the app `Machine.RestrictExecution` and consent to it; a wrong audience answers 403 too. A token that is cached gets a new permission only when it is renewed, within about an hour; a restart gets one at once",
		Ends:   probe,
	},
	{
		Code: DisabledFeature, Stops: true,
		Means:  "The tenant does not have the feature",
		Remedy: "licence and advanced features in the Defender portal",
		Ends:   probe,
	},
	{
		Code: Redirect, Stops: true,
		Means:  "The API answers with a redirect, which is never followed",
		Remedy: "a proxy's sign-in page, or a wrong `DEFENDER_API_URL`",
		Ends:   probe,
	},
	{
		Code: NotDefender, Stops: true,
		Means:  "A 4xx without Defender's error body: something other than Defender answers. An empty 404 counts only if Defender has answered no other call lately",
		Remedy: "the proxy, or a wrong `DEFENDER_API_URL`",
		Ends:   probe,
	},
	{
		Code: Other, Stops: true,
		Means:  "The API refuses all requests with a code that the worker does not know; the message has it",
		Remedy: "read the message",
		Ends:   probe,
	},
	{
		Code: NoWorker, Stops: true,
		Means:  "No worker is running",
		Remedy: "start `worker run`",
		Ends:   "when one runs, within 5 s",
	},
	{
		Code: NotUnderstood, Stops: true,
		Means:  "The presence record of a replica, or a key of `UNRESTRICT_STATE`, can't be understood by this version; the message names it",
		Remedy: "ask with that replica's version of the worker. Delete a key that no version wrote with `nats kv del`; `worker resume --closure` replaces the key of a closure",
		Ends:   "when all replicas have one version, and the key can be read",
	},
	{
		Code: Missing, Stops: true,
		Means:  "A stream, a bucket or the consumer no longer exists, and the worker may not recreate it, or can't",
		Remedy: "create what the message names; `worker check` prints the command and the settings. With `WORKER_PROVISION=true` and the permissions for it the worker does so by itself",
		Ends:   "when it exists, within 10 s",
	},
	{
		Code: Unfit, Stops: true,
		Means:  "Somebody has changed a stream or the consumer so that requests or results would be lost: sealed, other subjects, a limit of deliveries, another filter",
		Remedy: "change it back with the nats command, or delete it, so that it is recreated",
		Ends:   "when it is fit again, within 10 s",
	},
	{
		Code: JetStream, Stops: true,
		Means:  "JetStream does not answer although the broker is connected, or a stream or the consumer has no leader",
		Remedy: "see the servers' logs and `nats server report jetstream`: too few servers of the cluster are up, or JetStream is turned off or out of room",
		Ends:   "when it answers, within 10 s",
	},
	{
		Code: ConsumerPaused, Stops: true, Holds: Calls,
		Means:  "Somebody has paused the consumer with the nats command: nothing is delivered",
		Remedy: "`nats consumer resume`, or wait until the time that it says",
		Ends:   "when it is resumed or the time has come, within 10 s",
	},
	{
		Code: ControlUnreadable, Stops: true, Holds: Calls,
		Means:  "The stream of orders (`WORKER_CONTROL_STREAM`) can't be read to its end: it is not known whether a request was cancelled or its batch is held back, so no calls are made",
		Remedy: "the broker's log and the servers' state; whether the NATS user may read the stream. A flood of unsigned orders takes long to read: check who may publish on the control subject",
		Ends:   "when it is read to its end, within seconds",
	},
	{
		Code: OrdersLost, Stops: true, Holds: Calls,
		Means:  "Orders that were in force are gone: their stream (`WORKER_CONTROL_STREAM`) was deleted, purged or restored from an older copy, as `UNRESTRICT_STATE` knows. It is not known what they cancelled or held back, so no calls are made",
		Remedy: "give again the orders that still hold (`worker cancel`, `worker batch pause`; `worker audit export` has what was ordered, and who ordered it), then `worker resume --orders`. Find out who may delete or purge the stream",
		Ends:   "with `worker resume --orders`, within seconds",
	},
	{
		Code: RateUnknown, Stops: true, Note: true,
		Means:  "A stream of the call budget was lost, calls that still count were removed from it (purged, deleted, or dropped by a limit that somebody set), or calls were made without a limit: it is not known how many count in the API's window, so no calls are made until they have aged out",
		Remedy: "nothing needs to be done: it ends by itself: for the minute's window after a minute and a few seconds, for the hour's after 66 minutes",
		Ends:   "at the time that it says",
	},
	{
		Code: Denied, Stops: true,
		Means:  "The broker denies the worker's user a permission that it needs: to receive replies, to ask for requests, or to acknowledge them (in the last case requests are still taken, and `/readyz` stays 200)",
		Remedy: "grant the user the subject that the message names; deploy/nats/permissions.conf has the worker's list",
		Ends:   "when the broker allows it, tried again every 5 s; subscriptions come back with a new connection, which the worker makes by itself",
	},
	{
		Code: StreamFull, Stops: true,
		Means:  "The stream of results, the one of dead letters or the audit trail is full and takes no new message (discard new). No more calls are made, because their results could not be published. What is decided already waits in the ledger",
		Remedy: "make room, or raise the limit that the message names: `nats stream edit`. The audit trail can't be purged, its limit must be raised",
		Ends:   "when there is room, within 10 s",
	},
	{
		Code: NotPublished, Stops: true,
		Means:  "A result, a dead letter or an audit record can't be published. It waits in the ledger; no calls are made except a probe now and then",
		Remedy: "the message has the broker's error: limits of the account, a missing permission, no quorum",
		Ends:   "with the first message that is stored",
	},
	{
		Code: OutOfTouch, Stops: true, Holds: Calls,
		Means:  "This replica can't follow `UNRESTRICT_STATE`, so it would not learn of `worker pause`, of a closure by another replica's 429 or of the others' limits; meanwhile it takes no requests",
		Remedy: "the message says why: usually a missing permission (`worker check` names it) or the account's limit of consumers",
		Ends:   "when the bucket can be followed again, tried every few seconds",
	},
	{
		Code: Throttled, Stops: true, Note: true,
		Means:  "The API answered 429, and no replica calls before its `Retry-After` has passed. While that is more than a minute ahead no requests are taken, and `/readyz` is 503",
		Remedy: "nothing needs to be done. If it is further ahead than the API's limits explain (they are a minute's and an hour's; a `Retry-After` that held a time instead of seconds lasts for decades), `worker resume --closure` lifts it",
		Ends:   "at the time that it says, or with `worker resume --closure`",
	},
	{
		Code: StandingStill, Stops: true, Holds: Calls,
		Means:  "Requests wait, and none has been taken for minutes, for no known reason: a case that the worker does not recognise",
		Remedy: "see the log, `worker check` and `nats consumer info`; a restart loses nothing. Please report it",
		Ends:   "with the next request that is taken",
	},
	{
		Code: NotFollowing, Holds: Following,
		Means:  "Accepted actions are not followed: the list of them fails again and again, or none has been looked up for minutes, for no known reason. Their results are late",
		Remedy: "the message and the log say how the last look-up ended. Nothing is lost: following goes on with the first list that is answered",
		Ends:   "with the next look-up that succeeds",
	},
	{
		Code:   MayNotList,
		Means:  "Actions may not be listed: requests whose call got lost, and those whose machine has an action under way, wait; accepted actions are not followed",
		Remedy: "grant `Machine.Read.All` or `Machine.ReadWrite.All` and consent to it",
		Ends:   "with the first list that the API answers",
	},
	{
		Code: Unpublishable, Holds: Nothing,
		Means:  "A message about some requests is too large ever to be stored, even a result without its action and metadata: a stream that others made takes only small messages (`max_msg_size`, `max_bytes`), or the broker does (`max_payload`). Other requests go on. `worker why ID` shows it for each",
		Remedy: "raise the limit that the message names. What waits is published then, within about a minute",
		Ends:   "when all of it is published",
	},
	{
		Code: StillUnclear, Holds: Nothing,
		Means:  "Some requests get no clear answer from the API again and again, to their calls or to the look-ups for them, while others are served. `worker why ID` shows it for each",
		Remedy: "see the machine in the Defender portal; a request that still has none after `WORKER_GIVE_UP_AFTER` is abandoned",
		Ends:   "with a clear answer, or the request's end",
	},
	{
		Code:   ListRefused,
		Means:  "The API refuses the list of actions: requests whose call got lost wait, because it can't be known whether it took place; accepted actions are asked for one by one, a few at a time, and their results are late",
		Remedy: "the message is the API's. See whether Defender has an incident; if it no longer takes the query, that is a defect of this program: report it",
		Ends:   "with the first list that the API answers",
	},
	{
		Code: WaitingForQuota, Holds: Calls, Note: true,
		Means:  "All calls that the API allows are used up, except those reserved for look-ups; requests wait in the stream",
		Remedy: "nothing: the next call is made at the time given",
		Ends:   "with the next free call",
	},
	{
		Code: LiveReplicas, Holds: Nothing, Note: true,
		Means:  "This replica is in dry run (`WORKER_DRY_RUN`) beside live ones, and takes no requests: they would end without their calls",
		Remedy: "nothing needs to be done, or stop one of the two kinds",
		Ends:   "when no live replica is left",
	},
	{
		Code: Signers, Holds: Nothing,
		Means:  "The file of trusted signers can't be read as it is now; its last valid content stays in force",
		Remedy: "correct the file that `WORKER_TRUSTED_SIGNERS_FILE` names",
		Ends:   "when it is read again, within seconds of a change",
	},
	{
		Code: Policy, Holds: Nothing,
		Means:  "The policy file can't be read as it is now; its last valid content stays in force",
		Remedy: "correct the file that `WORKER_POLICY_FILE` names",
		Ends:   "when it is read again, within seconds of a change",
	},
	{
		Code: DiskNearlyFull, Holds: Nothing,
		Means:  "The embedded broker's store, or the file system that it is on, is 80 % full; with no room left nothing can be stored, and no request is taken",
		Remedy: "make room: docs/operations.md says what may go first",
		Ends:   "when less is used",
	},
	{
		Code: MaxPayload, Holds: Nothing,
		Means:  "The broker takes only small messages: larger requests are rejected, larger actions are left out of results",
		Remedy: "raise `max_payload` to what `worker check` names",
		Ends:   "with a broker that takes more",
	},
	{
		Code: Settings, Holds: Nothing, Note: true,
		Means:  "A stream or the consumer is set up differently from what would be created",
		Remedy: "nothing needs to be done if it is intended; otherwise change it with the nats command",
		Ends:   "when it is as it would be created",
	},
	{
		Code: LedgerLost, Holds: Nothing, // looks take their time, but that is no excuse for requests that stand still
		Means:  "The ledger was lost and recreated, as the state, the audit trail or a running replica shows: it is forgotten for which requests calls were made",
		Remedy: "find out who deleted or purged `KV_UNRESTRICT_LEDGER`, or its store. For each request that was published before, the API's list of actions is searched before a call; actions that were followed are followed again, as far as the audit trail has them",
		Ends:   "an hour after the new ledger was made",
	},
	{
		Code: AckPending, Holds: Calls,
		Means:  "Somebody has limited how many requests may be out at once (max_ack_pending), and those that wait for a delay count too: they hold up all others",
		Remedy: "`nats consumer edit` with `--max-pending=-1`",
		Ends:   "when it is raised, or fewer wait, within 10 s",
	},
	{
		Code: HeldElsewhere, Holds: Calls,
		Means:  "Requests were delivered to a client that is no replica of this worker, and are neither acknowledged nor nakked: they come to a replica only when the consumer's `ack_wait` is over, or never if it acknowledges them",
		Remedy: "find out who pulls from the worker's consumer (`nats consumer info`, the server's connections), and take the permission away. `nats consumer edit` with `--wait=20s` has them delivered again at once where `ack_wait` is longer",
		Ends:   "when they are delivered again or acknowledged, within 10 s",
	},
}
