package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/unrestrict-worker/internal/broker/stream"
)

// aboutMe is the subject on which every NATS server reports a user's permissions.
const aboutMe = "$SYS.REQ.USER.INFO"

// OptionalCall makes an optional call of a command, which may need more permissions than the command itself. If the broker
// reports that this user may not read the stream, the call is not made, so that no log has a permission violation for it. If
// the broker denies something all the same, the call ends at once. Only one such call may run at a time, and nothing may be
// published meanwhile.
func (b *Broker) OptionalCall(ctx context.Context, streamName string, call func(context.Context) error) error {
	if !b.mayRead(ctx, streamName) {
		return fmt.Errorf("the broker does not let this user read stream %s", streamName)
	}
	return b.untilDenied(ctx, call)
}

// mayRead reports whether this user may read a stream's info. If the broker does not report permissions, it returns true.
func (b *Broker) mayRead(ctx context.Context, streamName string) bool {
	user, err := b.user(ctx)
	if err != nil || user.Permissions == nil || user.Permissions.Publish == nil {
		return true
	}
	subject := stream.API(b.js, "STREAM.INFO."+streamName)
	matches := func(filter string) bool { return server.SubjectMatchesFilter(subject, filter) }
	may := user.Permissions.Publish
	return (len(may.Allow) == 0 || slices.ContainsFunc(may.Allow, matches)) && !slices.ContainsFunc(may.Deny, matches)
}

// user returns what the broker reports about this user.
func (b *Broker) user(ctx context.Context) (server.UserInfo, error) {
	var answer struct{ Data server.UserInfo }
	err := b.untilDenied(ctx, func(ctx context.Context) error {
		msg, err := b.nc.RequestWithContext(ctx, aboutMe, nil)
		if err != nil {
			return err
		}
		return json.Unmarshal(msg.Data, &answer)
	})
	return answer.Data, err
}

// Account is the name of this user's account, or the account's key if it has no name; "" if the broker does not report it.
func (b *Broker) Account(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	user, err := b.user(ctx)
	if err != nil {
		return "" // it is only shown; nothing depends on it
	}
	return cmp.Or(user.AccountName, user.Account)
}
