#!/usr/bin/env bash
# The Helm chart: linted, rendered with every file of values in its ci folder and checked against schemas; the Deployment run
# by podman with a broker beside it.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
chart=deploy/helm/unrestrict-worker
# Helm built from source believes in the oldest Kubernetes.
kube=(--kube-version 1.37.0)

archive=${K8S_SCHEMAS:-../shared/k8s-schemas.tar.xz}
schemas=
if [[ -f $archive ]] && has "chart against the schemas of Kubernetes" xz; then
    tar xJf "$archive" -C "$WORK"
    schemas=$WORK/schemas
    # Those of the Prometheus operator are made of its CustomResourceDefinitions.
    operator=$(go mod download -json github.com/prometheus-operator/prometheus-operator@v0.85.0 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    go run ./test/deploy/crdschema "$schemas" "$operator"/example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,prometheusrules}.yaml
else
    leftout "chart against the schemas of Kubernetes: $archive is missing"
fi

[[ -f $chart/files/alerts.yaml ]] || leftout "alert rules of the chart: deploy/monitoring/alerts.yaml is missing"
for values in "$chart/values.yaml" "$chart"/ci/*-values.yaml; do
    set=()
    [[ -f $chart/files/alerts.yaml ]] || set=(--set prometheusRule.enabled=false)
    "$HELM" lint --strict "${kube[@]}" -f "$values" "${set[@]}" "$chart" >"$WORK/lint" 2>&1 || { cat "$WORK/lint"; die "chart: lint with $values"; }
    "$HELM" template releases "$chart" "${kube[@]}" -f "$values" "${set[@]}" >"$WORK/objects.yaml"
    [[ $(grep -c '^kind:' "$WORK/objects.yaml") -ge 3 ]] || die "chart: $values makes next to nothing"
    if [[ -n $schemas ]]; then
        "$KUBECONFORM" -strict -summary -schema-location "$schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$WORK/objects.yaml" >"$WORK/conform" ||
            { cat "$WORK/conform"; die "chart: $values makes objects that Kubernetes refuses"; }
        say "chart: $(basename "$values"): $(grep Summary "$WORK/conform")"
    fi
done

# Each tenant's values lie over those that all share (docs/operations.md).
for tenant in deploy/helm/tenants/*.yaml; do
    [[ $tenant != */all.yaml ]] || continue
    "$HELM" template releases "$chart" "${kube[@]}" -f deploy/helm/tenants/all.yaml -f "$tenant" >"$WORK/objects.yaml"
    grep -q "WORKER_TENANT: \"\?$(basename "$tenant" .yaml)\"\?\$" "$WORK/objects.yaml" || die "chart: $tenant does not name its tenant"
    [[ -z $schemas ]] || "$KUBECONFORM" -strict -schema-location "$schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$WORK/objects.yaml" || die "chart: $tenant"
done

# The intake holds nothing of Defender's.
"$HELM" template releases "$chart" "${kube[@]}" -f "$chart/ci/intake-values.yaml" --set defender.auth=client-secret,defender.existingSecret=worker-defender \
    --show-only templates/intake.yaml >"$WORK/intake.yaml"
! grep -E 'worker-defender|AZURE_|DEFENDER_|azure.workload' "$WORK/intake.yaml" || die "chart: the intake has a credential of Defender's"

# Mistakes are refused, and say where.
while IFS='|' read -r mistake text; do
    # shellcheck disable=SC2086 # several words
    if "$HELM" template releases "$chart" "${kube[@]}" $mistake >"$WORK/refused" 2>&1; then die "chart: $mistake is taken"; fi
    grep -qF -- "$text" "$WORK/refused" || { cat "$WORK/refused"; die "chart: $mistake does not say \"$text\""; }
done <<'MISTAKES'
--set nats.urls=nats://nats:4222|urls
--set nats.auth=creds|nats.existingSecret
--set nats.auth=user,nats.existingSecret=a|nats.user
--set defender.auth=client-secret|defender.existingSecret
--set acceptance.policyKey=policy|acceptance.existingConfigMap
--set intake.enabled=true|intake.tls.existingSecret
--set intake.enabled=true,intake.tls.existingSecret=a|intake.clients.existingSecret
--set intake.enabled=true,intake.nats.auth=creds|intake.nats.existingSecret
--set intake.enabled=true,intake.tls.existingSecret=a,intake.clients.existingSecret=b,intake.ingress.enabled=true|intake.ingress.host
--set keda.maxReplicaCount=10|maxReplicaCount
--set config.WORKER_ADMIN_TOKEN=secret|WORKER_ADMIN_TOKEN
MISTAKES

tried "chart linted and rendered"
[[ -z $schemas ]] || tried "chart against the schemas of Kubernetes"
"$HELM" package "$chart" -d "$WORK" >/dev/null
say "chart: packaged, $(du -k "$WORK"/unrestrict-worker-*.tgz | cut -f1) KiB"

has "Deployment at work" podman buildah runc iptables catatonit netavark aardvark-dns || exit 0
[[ $(id -u) == 0 ]] || { leftout "Deployment at work: this needs root"; exit 0; }
containers
image "Deployment at work" || exit 0
leftout "cluster: its probes, NetworkPolicy and admission are looked at by schema alone"

end() {
    podman play kube --down "$WORK/play.yaml" >/dev/null 2>&1 || true
    podman rm -f -t 0 chart-nats >/dev/null 2>&1 || true
    podman volume rm -f worker-nats worker-defender worker-admin >/dev/null 2>&1 || true
    podman secret rm worker-nats worker-defender worker-admin >/dev/null 2>&1 || true
    podman network rm -f chart >/dev/null 2>&1 || true
}
trap end EXIT
"$HELM" template releases "$chart" "${kube[@]}" --set image.repository=localhost/unrestrict-worker,image.tag=deploy-test,image.pullPolicy=Never \
    --set replicaCount=1,nats.auth=token,nats.existingSecret=worker-nats,defender.auth=token-file,defender.existingSecret=worker-defender \
    --set admin.existingSecret=worker-admin,config.LOG_LEVEL=debug \
    --show-only templates/configmap.yaml --show-only templates/deployment.yaml >"$WORK/deployment.yaml"
# The token is for no API: the worker is ready, and no request is made.
{
    for secret in worker-nats:token:right worker-defender:token-file:none worker-admin:token:admin; do
        IFS=: read -r name key value <<<"$secret"
        printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ndata: {%s: %s}\n---\n' "$name" "$key" "$(printf %s "$value" | base64)"
    done
    cat "$WORK/deployment.yaml"
} >"$WORK/play.yaml"
podman network create chart >/dev/null
podman play kube --network chart "$WORK/play.yaml" >"$WORK/play" 2>&1 || { cat "$WORK/play"; die "chart: podman can't run the Deployment"; }
pod=$(podman ps -aq --filter 'name=releases.*-worker')
# The broker comes later, and takes the token that podman has mounted: podman 4.3 mounts a secret as it is written, base64.
cp "$NATS_SERVER" "$WORK/nats-server"
podman run -d --name chart-nats --network chart --network-alias nats --pull=never --entrypoint /nats-server -v "$WORK/nats-server:/nats-server:ro" \
    "$IMAGE" -js -sd /tmp/js --auth "$(cat "$(podman volume inspect --format '{{.Mountpoint}}' worker-nats)/token")" >/dev/null
until_true 60 podman exec "$pod" /usr/local/bin/worker healthcheck || { podman logs "$pod"; die "chart: the Deployment is not ready"; }
[[ $(podman exec "$pod" /usr/local/bin/worker status --json 2>/dev/null) == *'"healthy":true'* ]] || die "chart: status"
[[ $(podman inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.EffectiveCaps}}' "$pod") == "true 65532:65532 []" ]] ||
    { podman inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.EffectiveCaps}}' "$pod"; die "chart: it has more rights than it should"; }
tried "Deployment at work"
