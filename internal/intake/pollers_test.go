package intake_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
)

// bearer signs requests of the Azure SDK in with a token.
type bearer string

// Do implements policy.Policy.
func (b bearer) Do(r *policy.Request) (*http.Response, error) {
	r.Raw().Header.Set("Authorization", "Bearer "+string(b))
	return r.Next()
}

// TestPollerOfTheAzureSDK is the SDK's own: it reads the status at Operation-Location until that is one of Succeeded, Failed and
// Canceled, and then gets Location. Both have to be absolute for it.
func TestPollerOfTheAzureSDK(t *testing.T) {
	d := newWorld(t).open(nil)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	pipeline := runtime.NewPipeline("test", "v1", runtime.PipelineOptions{PerCall: []policy.Policy{bearer(token)}}, &policy.ClientOptions{Transport: client})
	ask, err := runtime.NewRequest(t.Context(), http.MethodPost, d.url+"/v1/requests")
	if err == nil {
		err = ask.SetBody(streaming.NopCloser(strings.NewReader(request("a", 1))), "application/json")
	}
	if err != nil {
		t.Fatal(err)
	}
	first, err := pipeline.Do(ask)
	if err != nil || first.StatusCode != http.StatusAccepted {
		t.Fatalf("%v, %v", first, err)
	}
	type status struct{ ID, Status, Outcome string }
	poller, err := runtime.NewPoller[status](first, pipeline, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.Poll(t.Context()); err != nil || poller.Done() {
		t.Errorf("while it waits: done %t, %v", poller.Done(), err)
	}
	d.work()
	got, err := poller.PollUntilDone(t.Context(), &runtime.PollUntilDoneOptions{Frequency: time.Second})
	if err != nil || got != (status{"a", "Succeeded", "succeeded"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestPollerOfLogicApps does as the HTTP action of Logic Apps: while the answer is 202 it gets Location, of that answer if it has one,
// after Retry-After; the first other answer is the action's.
func TestPollerOfLogicApps(t *testing.T) {
	d := newWorld(t).open(nil)
	next := func(method, url, body string) (int, string, string) {
		_, got := d.send(t.Context(), method, strings.TrimPrefix(url, d.url), body, []string{"Content-Type", "application/json"})
		defer got.Body.Close()
		text, err := io.ReadAll(got.Body)
		if err != nil || got.StatusCode == http.StatusAccepted && got.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %v %v", method, url, got.Header, err)
		}
		return got.StatusCode, got.Header.Get("Location"), string(text)
	}
	code, at, text := next(http.MethodPost, "/v1/requests", request("a", 1))
	if code != http.StatusAccepted {
		t.Fatalf("%d %s", code, text)
	}
	d.work()
	d.eventually("another answer than 202", func() bool {
		var location string
		if code, location, text = next(http.MethodGet, at, ""); location != "" {
			at = location
		}
		return code != http.StatusAccepted
	})
	if code != http.StatusOK || !strings.Contains(text, `"status":"Succeeded"`) {
		t.Errorf("%d %s", code, text)
	}
}
