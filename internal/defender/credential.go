package defender

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// CredentialConfig says how to sign in. The AZURE_* variables have the Azure SDK's names and meaning; of a secret
// AZURE_..._FILE names a file that holds it, and goes before the variable itself.
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

// NewCredential makes the source of tokens for cfg. Its error names every variable that is missing or wrong.
// Nothing is sent before the first token is asked for.
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
		return nil, fmt.Errorf("DEFENDER_AUTH=%s: %w", cfg.Mode, errors.New(redact(err.Error(), a.secrets...)))
	}
	return a, nil
}

// azureCredential gets tokens by azidentity.
type azureCredential struct {
	cfg     CredentialConfig
	options azcore.ClientOptions
	limit   time.Duration // of one request for a token, repeats included
	held    azcore.TokenCredential
	secrets []string // what held was built from
	last    string   // the latest token's value
}

func (a *azureCredential) Changed() bool { return false }

// Token asks the credential held. azidentity caches tokens, and the workload's own token, in the object, so that a fresh
// token and whatever follows a failure (a secret file replaced meanwhile) take a new object. A device code is kept: a
// new object would ask the person again.
func (a *azureCredential) Token(ctx context.Context, scope string, fresh bool) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, a.limit)
	defer cancel()
	var err error
	if fresh || a.held == nil {
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

// anyClaims makes MSAL pass by the cache of managed identity, which is shared by the whole process; they are not sent.
const anyClaims = "{}"

// pastSharedCache: a new chain that gives the refused token again signs in by managed identity.
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

func (a *azureCredential) build() (azcore.TokenCredential, error) {
	a.secrets = nil
	discovery := a.cfg.DisableInstanceDiscovery
	switch a.cfg.Mode {
	case "default":
		return a.chain()
	case "client-secret":
		return a.clientSecret()
	case "client-certificate":
		return a.clientCertificate()
	case "workload-identity":
		v, err := a.required("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")
		if err != nil {
			return nil, err
		}
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: a.options, DisableInstanceDiscovery: discovery, TenantID: v[0], ClientID: v[1], TokenFilePath: v[2],
		})
	case "managed-identity":
		return a.managedIdentity()
	case "azure-cli":
		return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: a.cfg.Getenv("AZURE_TENANT_ID")})
	case "device-code":
		v, err := a.required("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
		if err != nil {
			return nil, err
		}
		return azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{
			ClientOptions: a.options, DisableInstanceDiscovery: discovery, TenantID: v[0], ClientID: v[1], UserPrompt: a.prompt,
		})
	}
	return nil, errors.New("no such way to sign in (default, client-secret, client-certificate, workload-identity, " +
		"managed-identity, azure-cli, device-code, token-file)")
}

// chain is azidentity's. Its first link, the environment, is built here where it is complete, since azidentity knows
// no AZURE_..._FILE and would stop at that link too, whether it works or not.
func (a *azureCredential) chain() (azcore.TokenCredential, error) {
	get := a.cfg.Getenv
	selected := strings.ToLower(get("AZURE_TOKEN_CREDENTIALS"))
	environment := selected == "" || selected == "prod" || selected == "environmentcredential"
	if environment && get("AZURE_TENANT_ID") != "" && get("AZURE_CLIENT_ID") != "" {
		switch {
		case get("AZURE_CLIENT_SECRET") != "" || get("AZURE_CLIENT_SECRET_FILE") != "":
			return a.clientSecret()
		case get("AZURE_CLIENT_CERTIFICATE_PATH") != "":
			return a.clientCertificate()
		}
	}
	return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: a.options, DisableInstanceDiscovery: a.cfg.DisableInstanceDiscovery, TenantID: get("AZURE_TENANT_ID"),
	})
}

func (a *azureCredential) clientSecret() (azcore.TokenCredential, error) {
	v, missing := a.required("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
	secret, err := a.secret("AZURE_CLIENT_SECRET")
	if err == nil && secret == "" {
		err = errors.New("neither AZURE_CLIENT_SECRET nor AZURE_CLIENT_SECRET_FILE is set")
	}
	if err := errors.Join(missing, err); err != nil {
		return nil, err
	}
	return azidentity.NewClientSecretCredential(v[0], v[1], secret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: a.options, DisableInstanceDiscovery: a.cfg.DisableInstanceDiscovery,
	})
}

func (a *azureCredential) clientCertificate() (azcore.TokenCredential, error) {
	v, missing := a.required("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_CERTIFICATE_PATH")
	password, err := a.secret("AZURE_CLIENT_CERTIFICATE_PASSWORD")
	if err := errors.Join(missing, err); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(v[2])
	if err != nil {
		return nil, fmt.Errorf("AZURE_CLIENT_CERTIFICATE_PATH: %w", err)
	}
	certs, key, err := azidentity.ParseCertificates(content, []byte(password))
	if err != nil {
		return nil, fmt.Errorf("AZURE_CLIENT_CERTIFICATE_PATH: %s holds no usable certificate and key: %w", v[2], err)
	}
	chain, _ := strconv.ParseBool(a.cfg.Getenv("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN"))
	return azidentity.NewClientCertificateCredential(v[0], v[1], certs, key, &azidentity.ClientCertificateCredentialOptions{
		ClientOptions: a.options, DisableInstanceDiscovery: a.cfg.DisableInstanceDiscovery, SendCertificateChain: chain,
	})
}

func (a *azureCredential) managedIdentity() (azcore.TokenCredential, error) {
	options := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: a.options}
	if id := a.cfg.Getenv("AZURE_CLIENT_ID"); id != "" {
		options.ID = azidentity.ClientID(id)
	}
	return azidentity.NewManagedIdentityCredential(options)
}

func (a *azureCredential) prompt(_ context.Context, m azidentity.DeviceCodeMessage) error {
	if a.cfg.Prompt == nil {
		return errors.New("there is nobody to show the device code to")
	}
	a.cfg.Prompt(oneLine(m.Message, maxText))
	return nil
}

// required returns the values of the variables; its error names all that are not set.
func (a *azureCredential) required(names ...string) ([]string, error) {
	values, errs := make([]string, len(names)), []error(nil)
	for i, name := range names {
		if values[i] = a.cfg.Getenv(name); values[i] == "" {
			errs = append(errs, fmt.Errorf("%s is not set", name))
		}
	}
	return values, errors.Join(errs...)
}

// secret is the content of the file that name_FILE names, else the variable's value; "" if neither is set.
func (a *azureCredential) secret(name string) (string, error) {
	value := a.cfg.Getenv(name)
	if path := a.cfg.Getenv(name + "_FILE"); path != "" {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("%s_FILE: %w", name, err)
		}
		if value = strings.TrimRight(string(content), "\r\n"); value == "" {
			return "", fmt.Errorf("%s_FILE: %s is empty", name, path)
		}
	}
	if value != "" {
		a.secrets = append(a.secrets, value)
	}
	return value, nil
}

// maxSignIn bounds an answer of a sign-in endpoint, in bytes after decompression. azidentity reads to the end, wherever that is.
const maxSignIn = 1 << 20

type boundedTransport struct{ policy.Transporter }

func (b boundedTransport) Do(req *http.Request) (*http.Response, error) {
	resp, err := b.Transporter.Do(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxSignIn)
	}
	return resp, err
}

// plain is an error of azidentity in few words and without what answers repeat of a request: of an answer its status
// and codes, of other errors the first line.
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

// assertion is what the workload signs in with, "" if it does otherwise.
func (a *azureCredential) assertion() string {
	content, _ := os.ReadFile(a.cfg.Getenv("AZURE_FEDERATED_TOKEN_FILE"))
	return strings.TrimSpace(string(content))
}
