package broker

import (
	"strings"
	"testing"
)

// TestListenAddr judges what a name stands for, and not the name.
func TestListenAddr(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:0": "127.0.0.1", "localhost:0": "127.0.0.1", "0.0.0.0:0": "", ":0": "", "[::]:0": "",
	} {
		host, _, err := listenAddr(addr, "")
		if want == "" && (err == nil || !strings.Contains(err.Error(), "WORKER_EMBEDDED_TOKEN")) {
			t.Errorf("%s without a token: %s, %v", addr, host, err)
		}
		if want != "" && (err != nil || host != want && host != "::1") {
			t.Errorf("%s: %s, %v; want %s", addr, host, err, want)
		}
	}
	if host, _, err := listenAddr(":0", "token"); err != nil || host != "0.0.0.0" {
		t.Errorf("with a token: %s, %v", host, err)
	}
}

func TestOnLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:4222": true, "[::1]:4222": true, "": true, "192.0.2.1:4222": false, "[2001:db8::1]:4222": false, "192.0.2.1": false,
	} {
		if got := onLoopback(addr); got != want {
			t.Errorf("%q: %t", addr, got)
		}
	}
}

func TestTellsSecret(t *testing.T) {
	const url = "nats://192.0.2.1:4222"
	for _, c := range []struct {
		cfg  Config
		want bool
	}{
		{Config{URL: url, Auth: Auth{User: "u", Password: "p"}}, true},
		{Config{URL: url, Auth: Auth{Token: "t"}}, true},
		{Config{URL: url, Auth: Auth{User: "token"}}, true},
		{Config{URL: "nats://u:p@192.0.2.1:4222"}, true},
		{Config{URL: url, Auth: Auth{Creds: "file"}}, false},
		{Config{URL: url, Auth: Auth{NKey: "file"}}, false},
		{Config{URL: url}, false},
		{Config{EmbeddedToken: "t"}, false},
	} {
		if got := c.cfg.sendsSecret(); got != c.want {
			t.Errorf("%+v: %t", c.cfg, got)
		}
	}
}
