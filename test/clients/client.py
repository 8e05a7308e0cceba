"""A playbook in Python: signs in by msal, with the secret and with a certificate, and does to a machine what the others of
this folder do. Its settings are the variables that `worker simulate --tls` prints; CERTIFICATE is a PEM file with a key in
it and THUMBPRINT the SHA-1 of its certificate. REQUESTS_CA_BUNDLE is the simulator's CA."""

import os
import ssl
import json
import urllib.error
import urllib.parse
import urllib.request

import msal

env = os.environ
authority = env["AZURE_AUTHORITY_HOST"] + env["AZURE_TENANT_ID"]
scope = ["https://api.securitycenter.microsoft.com/.default"]
device = "/api/machines/" + env["MACHINE"]
# As Python does by default from 3.13 on; other versions of this library's clients are as strict if told so.
trust = ssl.create_default_context(cafile=env["SSL_CERT_FILE"])
trust.verify_flags |= ssl.VERIFY_X509_STRICT


def call(token, method, path, body=None):
    headers = {"Authorization": "Bearer " + token}
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(
        env["DEFENDER_API_URL"] + path, method=method, headers=headers, data=None if body is None else json.dumps(body).encode()
    )
    try:
        with urllib.request.urlopen(request, context=trust) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


credentials = {"secret": env["AZURE_CLIENT_SECRET"]}
if "CERTIFICATE" in env:
    with open(env["CERTIFICATE"]) as pem:
        credentials["certificate"] = {"private_key": pem.read(), "thumbprint": env["THUMBPRINT"]}

for name, credential in credentials.items():
    app = msal.ConfidentialClientApplication(
        env["AZURE_CLIENT_ID"], authority=authority, client_credential=credential, instance_discovery=False
    )
    answer = app.acquire_token_for_client(scope)
    assert "access_token" in answer, answer
    token = answer["access_token"]

    def release():
        return call(token, "POST", device + "/unrestrictCodeExecution", {"Comment": "released by " + name})

    status, restricted = call(token, "POST", device + "/restrictCodeExecution", {"Comment": "suspicious"})
    assert status == 201, restricted
    status, action = release()
    assert (status, action["type"]) == (201, "UnrestrictCodeExecution"), action
    status, refused = release()
    assert (status, refused["error"]["code"]) == (400, "ActiveRequestAlreadyExists"), refused
    chosen = urllib.parse.quote("id eq " + action["id"])
    status, found = call(token, "GET", "/api/machineactions?$filter=" + chosen + "&$select=id,status")
    assert found["value"] == [{"id": action["id"], "status": "Pending"}], found
    assert call(token, "GET", "/api/machineactions/" + action["id"])[1]["status"] == "Pending"
    status, ended = call(token, "POST", "/api/machineactions/" + action["id"] + "/cancel", {"Comment": "not yet"})
    assert (status, ended["id"], ended["status"]) == (200, action["id"], "Cancelled"), ended
    call(token, "POST", "/api/machineactions/" + restricted["id"] + "/cancel", {"Comment": "done"})
    print("msal with the " + name + ": restricted, released, refused again, followed, cancelled")
