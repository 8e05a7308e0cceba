package defender

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// CredentialConfig configures the sign-in. The AZURE_* variables have the Azure SDK's names and meaning. For a secret,
// AZURE_..._FILE names a file that holds it, and takes precedence over the variable itself.
type CredentialConfig struct {
	// Mode is default, client-secret, client-certificate, workload-identity, managed-identity, azure-cli, device-code or
	// token-file.
	Mode                     string
	Cloud                    string // for the authority, unless AZURE_AUTHORITY_HOST names one
	TokenFile                string // for token-file
	DisableInstanceDiscovery bool
	Getenv                   func(string) string // nil: os.Getenv
	Transport                policy.Transporter  // nil: our own *http.Client, which follows no redirect
	Prompt                   func(string)        // shows the user what to do, for device-code
}

// NewCredential makes the source of tokens for cfg. Its error names every variable that is missing or wrong. Nothing is
// sent before the first token is requested.
func NewCredential(cfg CredentialConfig) (CredentialSource, error) {
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	if cfg.Mode == "token-file" {
		if cfg.TokenFile == "" {
			return nil, errors.New("DEFENDER_TOKEN_FILE is not set")
		}
		return &tokenFile{path: cfg.TokenFile}, nil
	}
	_, _, authority, err := Endpoints(cfg.Cloud)
	if err != nil {
		return nil, fmt.Errorf("DEFENDER_CLOUD: %w", err)
	}
	if own := cfg.Getenv("AZURE_AUTHORITY_HOST"); own != "" {
		authority = own
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: idleFor, TLSHandshakeTimeout: dialTimeout,
				MaxResponseHeaderBytes: maxError,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	a := &azureCredential{cfg: cfg, limit: time.Minute, options: azcore.ClientOptions{
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: authority},
		Transport: boundedTransport{cfg.Transport},
		Retry:     policy.RetryOptions{TryTimeout: 20 * time.Second},
	}}
	if cfg.Mode == "device-code" {
		a.limit = 20 * time.Minute // a person has to act
	}
	if a.held, err = a.build(); err != nil {
		text := strings.ReplaceAll(err.Error(), "\n", "; ") // several joined errors
		return nil, fmt.Errorf("DEFENDER_AUTH=%s: %w", cfg.Mode, errors.New(redact(text, a.secrets...)))
	}
	return a, nil
}

// azureCredential gets tokens from azidentity.
type azureCredential struct {
	cfg     CredentialConfig
	options azcore.ClientOptions
	limit   time.Duration // of one token request, retries included
	held    azcore.TokenCredential
	secrets []*secret                    // that held was built from
	files   map[string][sha256.Size]byte // digests of the files that held was built from, by path
	last    string                       // the latest token's value
}

// Changed is always false: azidentity decides when to renew.
func (a *azureCredential) Changed() bool { return false }

// Token asks the held credential, rebuilt first if its files have changed. azidentity caches tokens, and the workload's
// own token, in the credential object. So a fresh token needs a new object, and so does an attempt after a failure,
// since a secret file may have been replaced meanwhile. After a failure with a device code the object is kept: a new
// one would ask the person again.
func (a *azureCredential) Token(ctx context.Context, scope string, fresh bool) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, a.limit)
	defer cancel()
	var err error
	if fresh || a.held == nil || a.rotated() {
		if a.held, err = a.build(); err != nil {
			a.held = nil
			return Token{}, a.plain(err)
		}
	}
	options := policy.TokenRequestOptions{Scopes: []string{scope}}
	if fresh && a.cfg.Mode == "managed-identity" {
		options.Claims = anyClaims
	}
	got, err := a.held.GetToken(ctx, options)
	if err != nil {
		if a.cfg.Mode != "device-code" {
			a.held = nil
		}
		return Token{}, a.plain(err)
	}
	if fresh && got.Token == a.last && a.cfg.Mode == "default" {
		got = a.pastSharedCache(ctx, options, got)
	}
	a.last = got.Token
	return Token{Value: got.Token, Expires: got.ExpiresOn, RefreshOn: got.RefreshOn}, nil
}

// rotated reports whether the content of a file that held was built from has changed.
func (a *azureCredential) rotated() bool {
	for path, was := range a.files {
		if content, err := os.ReadFile(path); err == nil && sha256.Sum256(content) != was {
			return true
		}
	}
	return false
}

// anyClaims makes MSAL bypass the cache of managed identity, which the whole process shares. The claims are not sent.
const anyClaims = "{}"

// pastSharedCache bypasses the cache of managed identity: a new chain that returns the refused token again has signed
// in by that. If it fails, it returns same.
func (a *azureCredential) pastSharedCache(ctx context.Context, options policy.TokenRequestOptions, same azcore.AccessToken) azcore.AccessToken {
	cred, err := a.managedIdentity()
	if err != nil {
		return same
	}
	options.Claims = anyClaims
	got, err := cred.GetToken(ctx, options)
	if err != nil {
		return same
	}
	return got
}

// maxSignIn bounds an answer of a sign-in endpoint, in bytes after decompression. azidentity itself has no limit.
const maxSignIn = 1 << 20

type boundedTransport struct{ policy.Transporter }

// Do bounds the answer.
func (b boundedTransport) Do(req *http.Request) (*http.Response, error) {
	resp, err := b.Transporter.Do(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxSignIn)
	}
	return resp, err
}

// plain shortens an error of azidentity and leaves out what answers repeat of a request: it keeps an answer's status
// and codes, and the first line of any other error.
func (a *azureCredential) plain(err error) error {
	var failed *azidentity.AuthenticationFailedError
	if errors.As(err, &failed) && failed.RawResponse != nil {
		content, _ := runtime.Payload(failed.RawResponse) // buffered by the pipeline already
		host := ""
		if req := failed.RawResponse.Request; req != nil && req.URL != nil {
			host = " " + req.URL.Host
		}
		return errors.New(signInRefused(host, failed.RawResponse.StatusCode, content))
	}
	return errors.New(redact(firstLines(notHTTP.ReplaceAllString(err.Error(), "$1")), append(a.secrets, a.assertion())...))
}

// assertion is the token that the workload signs in with, nil if it signs in another way.
func (a *azureCredential) assertion() *secret {
	content, _ := os.ReadFile(a.cfg.Getenv("AZURE_FEDERATED_TOKEN_FILE"))
	return newSecret(strings.TrimSpace(string(content)))
}
