package crash_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"example.com/unrestrict-worker/internal/defender/defendersim"
	"example.com/unrestrict-worker/internal/message"
)

// versionBefore is the last commit whose worker had one key for an id, whoever asked. Its stores must be taken over.
const versionBefore = "597cb8101091"

// workerBefore builds that worker, once.
var workerBefore = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp(filepath.Dir(worker), "before")
	if err != nil {
		return "", err
	}
	var source, said bytes.Buffer
	archive := exec.Command("git", "-C", "../..", "archive", "--format=tar", versionBefore)
	archive.Stdout, archive.Stderr = &source, &said
	if err := archive.Run(); err != nil {
		return "", fmt.Errorf("the history of this repository is needed down to commit %s (git fetch --unshallow): %w: %s", versionBefore, err, said.Bytes())
	}
	for files := tar.NewReader(&source); ; {
		f, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if path := filepath.Join(dir, filepath.FromSlash(f.Name)); f.Typeflag == tar.TypeReg {
			data, err := io.ReadAll(files)
			if err == nil {
				err = os.MkdirAll(filepath.Dir(path), 0o700)
			}
			if err == nil {
				err = os.WriteFile(path, data, 0o600)
			}
			if err != nil {
				return "", err
			}
		}
	}
	before := filepath.Join(dir, "worker-before.exe")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", before, "./cmd/worker")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the worker of commit %s: %w\n%s", versionBefore, err, out)
	}
	return before, nil
})

// upgrade is a world with a replica of the version before, two of this one, and two signers.
type upgrade struct {
	*world
	old   *replica
	seeds map[string][]byte
	sent  map[string]bool // "ID of SIGNER"
}

func newUpgrade(t *testing.T) *upgrade {
	before, err := workerBefore()
	if err != nil {
		t.Fatal(err)
	}
	u := &upgrade{seeds: map[string][]byte{}, sent: map[string]bool{}}
	var signers []string
	for _, name := range []string{"ann", "ben"} {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		public, _ := pair.PublicKey()
		u.seeds[name], _ = pair.Seed()
		signers = append(signers, name+"="+public)
	}
	u.world = newWorld(t, options{
		late: true, api: defendersim.Config{Latency: time.Second, AllowUnknownMachines: true},
		env: []string{"WORKER_TRUSTED_SIGNERS=" + strings.Join(signers, ",")},
	})
	u.old = u.replicas[0]
	u.old.argv[0] = before
	u.runBrokers()
	u.old.start() // it makes the store
	u.ready(u.old)
	u.connect()
	return u
}

func (u *upgrade) ready(r *replica) {
	u.t.Helper()
	until(u.t, time.Minute, func() string {
		if got := r.readiness(); got != "" {
			return fmt.Sprintf("%s: readiness %q\n%s", r.name, got, r.lines("", 10))
		}
		return ""
	})
}

// asks publishes a signed request, anew each time.
func (u *upgrade) asks(signer, id string) {
	u.t.Helper()
	whose := id + " of " + signer
	u.sent[whose] = true
	payload := fmt.Appendf(nil, `{"id":%q,"machineId":%q,"comment":%q,"expiresAt":%q}`, id, machineOf(whose), "crash "+whose,
		time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano))
	key, signature, err := message.Sign(u.seeds[signer], u.own.Names().Subject, payload)
	if err != nil {
		u.t.Fatal(err)
	}
	h := message.Header{message.HeaderSigner: {key}, message.HeaderSignature: {signature}}
	until(u.t, time.Minute, func() string {
		ctx, cancel := context.WithTimeout(u.t.Context(), 5*time.Second)
		defer cancel()
		if _, err := u.own.Publish(ctx, message.LaneNormal, h, payload); err != nil {
			return err.Error()
		}
		return ""
	})
}

// finals are the message ids of all final results, by "ID of SIGNER".
func (u *upgrade) finals() map[string][]string {
	u.t.Helper()
	all := map[string][]string{}
	var from uint64
	err := u.messages(u.t.Context(), u.own.Names().ResultsStream, &from, func(m *jetstream.RawStreamMsg) error {
		var r message.Result
		err := json.Unmarshal(m.Data, &r)
		if err == nil && r.Final {
			whose := r.RequestID + " of " + r.SignedBy
			if r.Outcome != message.Succeeded {
				u.t.Fatalf("%s ended %s: %+v\n%s", whose, r.Outcome, r.Error, u.logs(r.RequestID, 40))
			}
			all[whose] = append(all[whose], m.Header.Get("Nats-Msg-Id"))
		}
		return err
	})
	if err != nil {
		u.t.Fatal(err)
	}
	return all
}

// settle waits until each request has its final result and nothing waits, and judges: of each there is one result and one
// action.
func (u *upgrade) settle() (finals map[string][]string) {
	u.t.Helper()
	until(u.t, 4*time.Minute, func() string { // what met an old replica comes again after a minute
		finals = u.finals()
		for whose := range u.sent {
			if finals[whose] == nil {
				id, _, _ := strings.Cut(whose, " ")
				return whose + " has no final result\n" + u.logs(id, 40)
			}
		}
		s, err := u.own.JS().Stream(u.t.Context(), u.own.Names().Stream)
		if err != nil {
			return err.Error()
		}
		if n := s.CachedInfo().State.Msgs; n > 0 {
			return fmt.Sprint(n, " messages wait")
		}
		return ""
	})
	for whose, ids := range finals {
		if len(ids) != 1 || !u.sent[whose] {
			u.t.Errorf("%s has the final results %v", whose, ids)
		}
	}
	made := map[string]int{}
	for _, a := range u.api.Actions() {
		made[strings.TrimPrefix(a.Comment, "crash ")]++
	}
	for whose := range u.sent {
		if made[whose] != 1 {
			id, _, _ := strings.Cut(whose, " ")
			u.t.Errorf("%s has %d actions\n%s", whose, made[whose], u.logs(id, 60))
		}
	}
	return finals
}

// An upgrade from the version before, whose ids belonged to nobody: what it has ended stays ended, what is open goes on,
// and what is repeated while replicas of both versions are there is carried out once. Then ids are each signer's own.
func TestUpgradeFromTheVersionBefore(t *testing.T) {
	t.Parallel()
	u := newUpgrade(t)

	// The version before, alone: some end, and it is killed amid the calls of others.
	ids := func(kind string) (all []string) {
		for n := range 4 {
			all = append(all, fmt.Sprint(kind, "-", n))
		}
		return all
	}
	for _, id := range ids("ended") {
		u.asks("ann", id)
	}
	u.settle()
	calls := len(u.api.Calls())
	for _, id := range ids("open") {
		u.asks("ann", id)
	}
	until(t, time.Minute, func() string {
		if len(u.api.Calls()) < calls+4 {
			return "no calls"
		}
		return ""
	})
	u.old.kill()

	// Both versions: all of that is asked for again, and new requests, each several times.
	u.startAll()
	for range 3 {
		for _, id := range slices.Concat(ids("ended"), ids("open"), ids("both")) {
			u.asks("ann", id)
		}
		u.old.kill()
		u.old.start()
	}
	for _, r := range u.replicas {
		u.ready(r)
	}
	for _, id := range ids("later") {
		u.asks("ann", id)
		u.asks("ann", id)
	}
	time.Sleep(time.Second) // they are under way
	if status := u.old.stop(); status != 0 {
		t.Errorf("the version before ended with %d", status)
	}

	// This version alone: again, and the same ids by another signer.
	for _, id := range slices.Concat(ids("ended"), ids("open"), ids("both"), ids("later"), ids("new")) {
		u.asks("ann", id)
		u.asks("ben", id)
	}
	finals := u.settle()
	for whose, got := range finals {
		id, signer, _ := strings.Cut(whose, " of ")
		plain, owned := id+":final:1", id+":final:1:"+signer
		begunBefore := signer == "ann" && (strings.HasPrefix(id, "ended") || strings.HasPrefix(id, "open"))
		begunNow := signer == "ben" || strings.HasPrefix(id, "new")
		if begunBefore && got[0] != plain || begunNow && got[0] != owned || got[0] != plain && got[0] != owned {
			t.Errorf("the result of %s has the message id %s", whose, got[0])
		}
	}
}

// Back to the version before: it leaves alone what this version has begun or ended, instead of doing it again.
func TestGoingBackToTheVersionBefore(t *testing.T) {
	t.Parallel()
	u := newUpgrade(t)
	u.old.stop()
	u.replicas[1].start()
	u.asks("ann", "ended")
	u.settle()
	calls := len(u.api.Calls())
	u.asks("ann", "open")
	until(t, time.Minute, func() string {
		if len(u.api.Calls()) == calls {
			return "no call"
		}
		return ""
	})
	u.replicas[1].kill()
	u.old.start()
	u.ready(u.old)
	u.asks("ann", "ended")
	u.asks("ann", "other")
	until(t, time.Minute, func() string { // it works, and has met the two by then
		if u.finals()["other of ann"] == nil || strings.Count(u.old.lines("newerVersion", 100), "\n") < 1 {
			return "not yet\n" + u.old.lines("newerVersion", 10)
		}
		return ""
	})
	u.old.stop()
	u.replicas[1].start()
	u.settle()
}
