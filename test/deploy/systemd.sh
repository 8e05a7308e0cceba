#!/usr/bin/env bash
# The unit under a real systemd, which is the first process of a container: ready, at work with its secret as a credential and
# its store under DynamicUser, killed by the watchdog when it is frozen, and stopped.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
unit=deploy/systemd/unrestrict-worker.service
if has "exposure of the units" systemd-analyze; then
    for each in deploy/systemd/*.service; do
        systemd-analyze security --offline=true --threshold=20 "$each" >"$WORK/security" || { cat "$WORK/security"; die "systemd: $each is open to more than 2.0"; }
        say "systemd: $(basename "$each"): $(grep -o 'Overall exposure.*[0-9.]\+' "$WORK/security")"
    done
    tried "exposure of the units"
fi
has "unit under systemd" podman runc debootstrap apt-get || exit 0
[[ $(id -u) == 0 ]] || { leftout "unit under systemd: this needs root"; exit 0; }
containers

CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$WORK/worker" ./cmd/worker
system=localhost/systemd:deploy-test
if ! podman image exists "$system"; then
    say "systemd: make an image with systemd"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | head -1)
    if ! debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$WORK/rootfs" "$mirror" >"$WORK/debootstrap" 2>&1; then
        leftout "unit under systemd: Debian's packages can't be had, $(tail -1 "$WORK/debootstrap")"
        exit 0
    fi
    tar -C "$WORK/rootfs" -c . | podman import -q - "$system" >/dev/null
    rm -rf "$WORK/rootfs"
fi

name=systemd-worker
end() { podman rm -f -t 0 "$name" >/dev/null 2>&1 || true; }
trap end EXIT
podman run -d --name "$name" --pull=never --privileged --systemd=always --network=none -v "$WORK/worker:/usr/local/bin/worker:ro" \
    -v "$PWD/$unit:/etc/systemd/system/unrestrict-worker.service:ro" \
    "$system" sh -c 'mount --make-rshared / && exec /sbin/init' >/dev/null # as on a machine: credentials are mounts that spread
inside() { podman exec -i "$name" "$@"; }
show() { inside systemctl show --value -p "$1" unrestrict-worker; }
is() { [[ $(show "$1") == $2 ]]; }
lost() { inside journalctl --no-pager -n 40 -u unrestrict-worker || true; die "systemd: $*"; }
until_true 60 inside systemctl is-system-running --wait || inside systemctl --failed --no-pager

inside systemd-analyze verify /etc/systemd/system/unrestrict-worker.service || die "systemd: the unit is wrong"

# The API: client secret and CA of a simulator, as an operator would put them.
inside bash -euo pipefail -s <<'INSIDE'
mkdir -p /etc/unrestrict-worker /etc/systemd/system/unrestrict-worker.service.d
systemd-run -q --unit=simulator -p StandardOutput=file:/run/simulator.txt -p RuntimeDirectory=api /usr/local/bin/worker simulate --tls --dir /run/api
until grep -q Interrupt /run/simulator.txt 2>/dev/null; do sleep 0.2; done
sed -n 's/^export AZURE_CLIENT_SECRET=//p' /run/simulator.txt >/etc/unrestrict-worker/azure-client-secret
chmod 600 /etc/unrestrict-worker/azure-client-secret
sed -n 's/^export //p' /run/simulator.txt | grep -vE '^(AZURE_CLIENT_SECRET|SSL_CERT_FILE)=' >/etc/unrestrict-worker/worker.env
printf '[Service]\nLoadCredential=ca.pem:/run/api/ca.pem\nEnvironment=SSL_CERT_FILE=%%d/ca.pem WORKER_POLL_INTERVAL=1s\n' \
    >/etc/systemd/system/unrestrict-worker.service.d/simulator.conf
systemctl daemon-reload
INSIDE

say "systemd: start"
inside systemctl start unrestrict-worker || lost "it did not start"
is ActiveState active || lost "start is done and it is $(show ActiveState)"
until_true 30 is StatusText 'taking requests: *' || lost "its status is $(show StatusText)"
pid=$(show MainPID)
user=$(inside stat -c %U "/proc/$pid")
[[ $user != root && $(inside stat -c %U /var/lib/private/unrestrict-worker) == "$user" ]] || lost "it runs as $user"
submit() { inside worker submit --machine "$MACHINE" --comment "$1" --wait | grep succeeded >/dev/null || lost "$1"; }
submit "a request under systemd"

say "systemd: freeze it, and wait for the watchdog"
inside systemctl kill -s STOP --kill-whom=main unrestrict-worker
until_true 90 is NRestarts 1 || lost "the watchdog did nothing"
inside journalctl --no-pager -u unrestrict-worker | grep -F "Failed with result 'watchdog'" >/dev/null || lost "it was not the watchdog"
until_true 60 is StatusText 'taking requests: *' || lost "it did not come back"
[[ $(inside worker results --follow=false | grep -c succeeded) == 1 ]] || lost "its store is not what it was"
submit "a request after the watchdog"

say "systemd: stop it, and start it with a mistake"
inside systemctl stop unrestrict-worker
is Result success && is ExecMainStatus 0 || lost "it ended with $(show Result), $(show ExecMainStatus)"
echo WORKER_RATE_PER_HOUR=many | inside tee -a /etc/unrestrict-worker/worker.env >/dev/null
if inside systemctl start unrestrict-worker 2>/dev/null; then lost "a mistake starts"; fi
inside journalctl --no-pager -u unrestrict-worker | grep WORKER_RATE_PER_HOUR >/dev/null || lost "the mistake is not in the journal"
tried "unit under systemd"
