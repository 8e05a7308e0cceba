// Systems that ask over HTTP, against `worker demo --stay`: the HTTP emitter of the CloudEvents SDK in both modes, and a poller as
// the HTTP action of Logic Apps is one. INTAKE and TOKEN are what the demo prints.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { CloudEvent, emitterFor, httpTransport, Mode } from "cloudevents";

const { INTAKE: intake, TOKEN: token } = process.env;
const headers = { Authorization: `Bearer ${token}` };

// Location is followed until an answer other than 202, at the pace of Retry-After.
async function poll(at) {
  for (;;) {
    const answer = await fetch(at, { headers });
    if (answer.status !== 202) return [answer.status, await answer.json()];
    at = answer.headers.get("location") ?? at;
    await setTimeout(1000 * answer.headers.get("retry-after"));
  }
}

for (const [n, mode] of [Mode.BINARY, Mode.STRUCTURED].entries()) {
  const emit = emitterFor(httpTransport(`${intake}/v1/requests`), { mode });
  const event = new CloudEvent({
    type: "com.contoso.release", source: "/soar/playbook-7", id: `run-${mode}`,
    data: { machineId: String(n + 1).padStart(40, "c"), comment: "Cleaned and validated" },
  });
  const stored = await emit(event, { headers });
  assert(stored.headers.location, stored.body);
  const again = JSON.parse((await emit(event, { headers })).body);
  assert.equal(again.duplicate, true);
  const [status, told] = await poll(stored.headers.location);
  assert.deepEqual([status, told.status, told.id], [200, "Succeeded", `/soar/playbook-7#run-${mode}`]);
  console.log(`cloudevents, ${mode}: sent twice, carried out once, its result found by its Location`);
}
