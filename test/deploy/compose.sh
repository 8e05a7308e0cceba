#!/usr/bin/env bash
# compose.yaml, by docker compose on podman's socket, with look-alike images of NATS and Prometheus: requests are carried out
# while a broker and a worker are away.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
has compose buildah podman runc iptables catatonit netavark aardvark-dns curl jq prometheus || exit 0
[[ $(id -u) == 0 ]] || { leftout "compose: this needs root"; exit 0; }
if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif has compose docker-compose; then
    compose=(docker-compose)
else
    exit 0
fi
containers
image compose || exit 0
say "compose: by $("${compose[@]}" version --short), on podman"
file=$(undigested deploy/compose.yaml)

# lookalike NAME ENTRYPOINT PROGRAM makes an image of one program and what it is linked with.
lookalike() {
    local container root
    container=$(buildah from scratch)
    root=$(buildah mount "$container")
    mkdir -p "$root"/{tmp,data,prometheus,bin}
    cp "$3" "$root$2"
    { ldd "$3" 2>/dev/null || true; } | { grep -oE '/[^ :]+' || true; } | sort -u | while read -r library; do install -D "$library" "$root$library"; done
    buildah config --entrypoint "[\"$2\"]" "$container"
    buildah umount "$container" >/dev/null
    buildah commit -q --rm "$container" "$1" >/dev/null
}
tag() { awk -v service="  $1:" '$0 == service {found = 1} found && /image:/ {print $2; exit}' "$file"; }
lookalike "$(awk '/image: .*nats:/ {print $2}' "$file")" /nats-server "$NATS_SERVER"
lookalike "$(tag prometheus)" /bin/prometheus "$(command -v prometheus)"
buildah config --cmd '["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]' \
    "$(buildah from --name prometheus-cmd "$(tag prometheus)")"
buildah commit -q --rm prometheus-cmd "$(tag prometheus)" >/dev/null
podman tag "$IMAGE" docker.io/library/unrestrict-worker:latest
leftout "Grafana: there is no package of it here"
leftout "real images of others: look-alikes of what is installed stand in for them"

# What another part of the repository brings may be missing; Prometheus would not start without its rules.
[[ -f deploy/monitoring/alerts.yaml ]] || { leftout "Prometheus in compose: deploy/monitoring/alerts.yaml is missing"; without_rules=1; }
services=(nats-1 nats-2 nats-3 simulator worker-1 worker-2 intake)
[[ -n ${without_rules:-} ]] || services+=(prometheus)

export DOCKER_HOST=unix://$WORK/podman.sock COMPOSE_PROJECT_NAME=deploytest
podman system service --time 0 "$DOCKER_HOST" >"$WORK/podman.log" 2>&1 &
service=$!
end() {
    "${compose[@]}" --project-directory deploy -f "$file" down -v -t 5 >/dev/null 2>&1 || true
    kill "$service" && wait "$service" || true
}
trap end EXIT
until_true 20 curl -fsS --unix-socket "$WORK/podman.sock" http://podman/_ping

"${compose[@]}" --project-directory deploy -f "$file" config >"$WORK/config" || die "compose: the file is wrong"
"${compose[@]}" --project-directory deploy -f "$file" up -d --no-build "${services[@]}" >"$WORK/up" 2>&1 || { cat "$WORK/up"; die "compose: up"; }
container() { podman ps -aq --filter "label=com.docker.compose.service=$1" --filter "label=com.docker.compose.project=deploytest"; }
for worker in worker-1 worker-2; do
    until_true 120 podman exec "$(container "$worker")" worker healthcheck ||
        { podman logs --tail 20 "$(container "$worker")"; podman logs --tail 20 "$(container nats-1)"; die "compose: $worker is not ready"; }
done

# release WORKER COMMENT sees a request through to its end.
release() {
    podman exec "$(container "$1")" worker submit --machine "$MACHINE" --comment "$2" --wait >"$WORK/release" && grep -q succeeded "$WORK/release"
}
release worker-1 "everything runs" || die "compose: a request was not carried out"
podman exec -e NATS_USER=playbook "$(container worker-2)" worker submit --machine "$MACHINE" --comment playbook >/dev/null ||
    die "compose: the playbook's user may not ask"
if podman exec -e NATS_USER=playbook "$(container worker-2)" worker status >/dev/null 2>&1; then
    die "compose: the playbook's user may look"
fi
# What a client of NATS would not do: listen to all inboxes while a request of somebody else is carried out, and name the
# worker's own subject as the place for an answer.
asked() { # COMMAND...: what the broker says to the playbook's user for ten seconds
    exec 9<>/dev/tcp/127.0.0.1/4222
    printf '%s\r\n' 'CONNECT {"verbose":false,"user":"playbook","pass":"for-trying-out"}' "$@" PING >&9
    timeout 10 cat <&9 || true
    exec 9>&-
}
asked 'SUB _INBOX.> 1' 'PUB remediation.unrestrict _INBOX.mine 2' '{}' >"$WORK/asked" &
asked=$!
release worker-2 "somebody else asks" || die "compose: a request beside those of the playbook was not carried out"
wait "$asked"
grep -q '^MSG _INBOX.mine ' "$WORK/asked" || { cat "$WORK/asked"; die "compose: the playbook's user does not hear that his request is stored"; }
if grep '^H\?MSG ' "$WORK/asked" | grep -v '^MSG _INBOX.mine '; then
    die "compose: the playbook's user hears what is meant for others"
fi
# The pause of the deployment whose stream is REMEDIATION.
asked 'PUB remediation.unrestrict $KV.UNRESTRICT_STATE.pause.4106dc94 2' '{}' >"$WORK/asked"
podman exec "$(container worker-2)" worker status --json >"$WORK/status" || true
grep -q '"paused":null' "$WORK/status" || { cat "$WORK/status"; die "compose: the playbook's user has paused the workers"; }
if podman exec -e NATS_PASSWORD=wrong "$(container worker-2)" worker status >/dev/null 2>&1; then
    die "compose: a wrong password is taken"
fi

# Over HTTP: 202, and at the end 200.
intake() { curl -s -o "$WORK/answer" -w '%{http_code}' -H 'Authorization: Bearer for-trying-out' -H 'Content-Type: application/json' "$@"; }
until_true 60 curl -fsS -o /dev/null http://127.0.0.1:8090/readyz || die "compose: the intake is not ready"
[[ $(intake -d "{\"id\":\"http\",\"machineId\":\"$MACHINE\",\"comment\":\"over HTTP\"}" http://127.0.0.1:8090/v1/requests) == 202 ]] ||
    { cat "$WORK/answer"; die "compose: the intake takes no request"; }
ended() { [[ $(intake http://127.0.0.1:8090/v1/requests/http) == 200 ]]; }
until_true 90 ended || { cat "$WORK/answer"; die "compose: what was asked over HTTP does not end"; }
[[ $(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8090/v1/requests/http) == 401 ]] || die "compose: the intake asks for no token"

# Of each stream there are three copies.
address=$(podman inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(container nats-2)")
curl -fsS "http://$address:8222/jsz?streams=1&config=1&accounts=1" >"$WORK/jsz"
replicas=$(jq -c '[.account_details[].stream_detail[].config.num_replicas] | unique' "$WORK/jsz")
[[ $replicas == "[3]" ]] || die "compose: streams have $replicas copies"

page() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
[[ $(page http://127.0.0.1:8081/status) == 401 && $(page -H "Authorization: Bearer for-trying-out" http://127.0.0.1:8081/status) == 200 ]] ||
    die "compose: the worker's page does not ask for the token"

podman kill "$(container nats-1)" "$(container worker-2)" >/dev/null
# The other two brokers may first have to agree on who leads.
until_true 90 release worker-1 "a broker and a worker are gone" || die "compose: nothing goes on without a broker and a worker"

if [[ -z ${without_rules:-} ]]; then
    up() { [[ $(curl -fsS 'http://127.0.0.1:9090/api/v1/query?query=up' | jq -r '[.data.result[] | select(.value[1] == "1")] | length') -ge 1 ]]; }
    until_true 60 up || die "compose: Prometheus sees no worker"
    rules=$(curl -fsS http://127.0.0.1:9090/api/v1/rules | jq '[.data.groups[].rules[]] | length')
    ((rules > 0)) || die "compose: Prometheus has no rules"
    say "compose: Prometheus has $rules rules"
fi
tried compose
