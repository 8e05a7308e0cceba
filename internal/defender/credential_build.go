package defender

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

func (a *azureCredential) build() (azcore.TokenCredential, error) {
	a.secrets, a.files = nil, map[string][sha256.Size]byte{}
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

// SignsInWith describes what a way of signing in needs: its variables, and anything else.
func SignsInWith(mode string) string {
	switch mode {
	case "client-secret":
		return "AZURE_TENANT_ID, AZURE_CLIENT_ID, and AZURE_CLIENT_SECRET or AZURE_CLIENT_SECRET_FILE"
	case "client-certificate":
		return "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_CERTIFICATE_PATH; where it has a password AZURE_CLIENT_CERTIFICATE_PASSWORD, or that with _FILE; AZURE_CLIENT_SEND_CERTIFICATE_CHAIN if it is to be sent whole"
	case "workload-identity":
		return "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE; on AKS its webhook sets them"
	case "managed-identity":
		return "a machine in Azure that has one; AZURE_CLIENT_ID names one that a user has assigned"
	case "azure-cli":
		return "the sign-in of az login; AZURE_TENANT_ID if it is to be in another tenant"
	case "device-code":
		return "AZURE_TENANT_ID and AZURE_CLIENT_ID, and a person"
	case "token-file":
		return "DEFENDER_TOKEN_FILE, which something else renews"
	case "default":
		return "those of the secret or the certificate, else what the Azure SDK finds; AZURE_TOKEN_CREDENTIALS says which of its ways it tries"
	}
	return ""
}

// chain is azidentity's default chain. Its first link, the environment, is built here if its variables are complete:
// azidentity does not know AZURE_..._FILE, and would stop at that link too, whether it works or not.
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
	content, err := a.readFile(v[2])
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
		return errors.New("there is no terminal to show the device code on")
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

func (a *azureCredential) readFile(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	a.files[path] = sha256.Sum256(content)
	return content, err
}

// secret is the content of the file that name_FILE names, else the variable's value; "" if neither is set.
func (a *azureCredential) secret(name string) (string, error) {
	value := a.cfg.Getenv(name)
	if path := a.cfg.Getenv(name + "_FILE"); path != "" {
		content, err := a.readFile(path)
		if err != nil {
			return "", fmt.Errorf("%s_FILE: %w", name, err)
		}
		if value = strings.TrimRight(string(content), "\r\n"); value == "" {
			return "", fmt.Errorf("%s_FILE: %s is empty", name, path)
		}
	}
	if value != "" {
		a.secrets = append(a.secrets, newSecret(value))
	}
	return value, nil
}
