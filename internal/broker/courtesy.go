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

// aboutMe is where every NATS server tells a user what it may do.
const aboutMe = "$SYS.REQ.USER.INFO"

// Courtesy is for what a command asks beside its own business, with more rights than that takes. Where the broker says that this
// user may not read the stream the call is not made, so that nobody's log has a violation for it; where the broker denies
// something all the same it ends at once. One such call at a time, and nothing published meanwhile.
func (b *Broker) Courtesy(ctx context.Context, streamName string, call func(context.Context) error) error {
	if !b.mayRead(ctx, streamName) {
		return fmt.Errorf("the broker does not let this user read stream %s", streamName)
	}
	return b.untilDenied(ctx, call)
}

// mayRead reports whether this user may look at a stream. A broker that does not say so is one that may let it.
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

// user is what the broker says of this user.
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

// Account is the name of this user's account, else its key; "" where the broker does not say.
func (b *Broker) Account(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	user, err := b.user(ctx)
	if err != nil {
		return "" // it is shown, and nothing rests on it
	}
	return cmp.Or(user.AccountName, user.Account)
}
