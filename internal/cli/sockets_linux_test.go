package cli

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEmbeddedBrokerListensOnce: off loopback the embedded broker has its clients' port and no other, least of all one
// for monitoring, which has no sign-in.
func TestEmbeddedBrokerListensOnce(t *testing.T) {
	sim, pasted := startSimulator(t, terminal(t.TempDir()), []string{"worker", "simulate"})
	env := append(terminal(t.TempDir()), pasted...)
	run, broker, admin := startRun(t, append(env, "WORKER_EMBEDDED_ADDR=0.0.0.0:0", "WORKER_EMBEDDED_TOKEN=secret"), []string{"worker", "run"})
	port := broker[strings.LastIndex(broker, ":"):]
	want := []string{"0.0.0.0" + port, admin}
	slices.Sort(want)
	if got := listeners(t, run.cmd.Process.Pid); !slices.Equal(got, want) {
		t.Errorf("it listens at %q, want %q", got, want)
	}
	run.stop(t)
	sim.stop(t)
}

// listeners are the addresses at which a process listens. [doc] proc_pid_net(5): st 0A is TCP_LISTEN.
func listeners(t *testing.T, pid int) (all []string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no open files of %d: %v", pid, err)
	}
	own := map[string]bool{}
	for _, file := range files {
		if name, err := os.Readlink(file); err == nil { // else closed meanwhile
			own[name] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) > 9 && fields[3] == "0A" && own["socket:["+fields[9]+"]"] {
				all = append(all, socketAddr(t, fields[1]))
			}
		}
	}
	slices.Sort(all)
	return all
}

// socketAddr reads 0100007F:1F90. Go listens at all of IPv6 too where 0.0.0.0 is asked for; another IPv6 address is
// left in hexadecimal.
func socketAddr(t *testing.T, s string) string {
	t.Helper()
	host, port, _ := strings.Cut(s, ":")
	number, err := hex.DecodeString(port)
	if err != nil {
		t.Fatal(err)
	}
	ip, err := hex.DecodeString(host)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case host == strings.Repeat("0", len(host)):
		host = "0.0.0.0"
	case len(ip) == 4:
		host = fmt.Sprintf("%d.%d.%d.%d", ip[3], ip[2], ip[1], ip[0])
	}
	return fmt.Sprintf("%s:%d", host, binary.BigEndian.Uint16(number))
}
