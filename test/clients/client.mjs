// A playbook in JavaScript: signs in by @azure/identity, with the secret and with a certificate, and does to a machine what
// the others of this folder do. Its settings are the variables that `worker simulate --tls` prints; CERTIFICATE is a PEM
// file with a key in it.
import assert from "node:assert/strict";
import { ClientCertificateCredential, ClientSecretCredential } from "@azure/identity";

const { AZURE_TENANT_ID: tenant, AZURE_CLIENT_ID: client, AZURE_CLIENT_SECRET: secret, AZURE_AUTHORITY_HOST: authorityHost, DEFENDER_API_URL: api, CERTIFICATE: certificate, MACHINE: machine } = process.env;
const options = { authorityHost, disableInstanceDiscovery: true };
const scope = "https://api.securitycenter.microsoft.com/.default";

async function call(token, method, path, body) {
  const response = await fetch(api + path, {
    method,
    headers: { Authorization: `Bearer ${token}`, ...(body && { "Content-Type": "application/json" }) },
    body: body && JSON.stringify(body),
  });
  return [response.status, JSON.parse(await response.text())];
}

for (const [name, credential] of Object.entries({
  secret: new ClientSecretCredential(tenant, client, secret, options),
  certificate: new ClientCertificateCredential(tenant, client, { certificatePath: certificate }, options),
})) {
  const { token, expiresOnTimestamp } = await credential.getToken(scope);
  assert(expiresOnTimestamp > Date.now());
  const device = `/api/machines/${machine}`;
  const release = () => call(token, "POST", `${device}/unrestrictCodeExecution`, { Comment: `released by ${name}` });

  const [begun, restricted] = await call(token, "POST", `${device}/restrictCodeExecution`, { Comment: "suspicious" });
  assert.equal(begun, 201);
  const [status, action] = await release();
  assert.equal(status, 201);
  assert.equal(action.type, "UnrestrictCodeExecution");
  const [again, refused] = await release();
  assert.deepEqual([again, refused.error.code], [400, "ActiveRequestAlreadyExists"]);
  const listed = await call(token, "GET", `/api/machineactions?$filter=${encodeURIComponent(`id eq ${action.id}`)}&$select=id,status`);
  assert.deepEqual(listed[1].value, [{ id: action.id, status: "Pending" }]);
  assert.equal((await call(token, "GET", `/api/machineactions/${action.id}`))[1].status, "Pending");
  const [cancelled, ended] = await call(token, "POST", `/api/machineactions/${action.id}/cancel`, { Comment: "not yet" });
  assert.deepEqual([cancelled, ended.id, ended.status], [200, action.id, "Cancelled"]);
  await call(token, "POST", `/api/machineactions/${restricted.id}/cancel`, { Comment: "done" });
  console.log(`@azure/identity with the ${name}: restricted, released, refused again, followed, cancelled`);
}
