package service

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"
)

// rulesInterval is how soon the log reports a changed file. A request is judged by the file's content when it is handled.
const rulesInterval = time.Second

// WatchRules logs when the file of signers or the policy becomes unusable, when it is usable again, and when the trusted signers
// change. While a file is unusable its last good content stays in force; /readyz has that among its details.
func (s *Service) WatchRules(ctx context.Context) error {
	a := s.Settings.Accept
	if a.Signers == nil && a.Policy == nil {
		return nil
	}
	logged := map[string]string{}
	names := a.Signers.Names()
	for Pause(ctx, rulesInterval) {
		for what, err := range map[string]error{"signers": a.Signers.Err(), "policy": a.Policy.Err()} {
			switch {
			case err == nil && logged[what] != "":
				s.Log.Info("a rule file is in use again", zap.String("rules", what))
				logged[what] = ""
			case err != nil && logged[what] != err.Error():
				s.Log.Warn("a rule file is not in use, what was read before stays in force", zap.String("rules", what), zap.Error(err))
				logged[what] = err.Error()
			}
		}
		if now := a.Signers.Names(); !slices.Equal(now, names) {
			s.Log.Info("the trusted signers have changed", zap.Strings("from", names), zap.Strings("to", now))
			names = now
		}
	}
	return nil
}
