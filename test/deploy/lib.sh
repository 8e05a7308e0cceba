# Sourced by the parts of "make deploy-test": bash, from the root of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

: "${WORK:?run test/deploy/run.sh, which makes a folder to work in}"
IMAGE=localhost/unrestrict-worker:deploy-test
MACHINE=1e5bc9d7e413ddd7902c2932e418702b84d0cc07

say() { echo "deploy-test: $*"; }
die() { say "FAILED: $*"; exit 1; }

# leftout PIECE: WHY says what was not tried, now and in the list at the end.
leftout() {
    say "left out: $*"
    echo "$*" >>"$WORK/leftout"
}

# tried PIECE says that all of a piece was tried and is right; the last line names it.
tried() { echo "$*" >>"$WORK/tried"; }

# has PIECE PROGRAM... reports whether all programs are there; a piece that lacks some is left out, and all of them are named.
# deploy/README.md has one line that installs them.
has() {
    local what=$1 program missing=() PATH=$PATH:/usr/sbin:/usr/lib/podman:/usr/libexec/podman # podman looks there for its helpers
    shift
    for program in "$@"; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    ((${#missing[@]} == 0)) || { leftout "$what: not installed: ${missing[*]}"; return 1; }
}

# undigested FILE is a copy of it whose images are named by their tags alone: those here are look-alikes.
undigested() {
    local copy
    copy=$WORK/undigested.$(basename "$1")
    sed -E 's/@sha256:[0-9a-f]{64}//' "$1" >"$copy"
    echo "$copy"
}

# until repeats a command until it succeeds, at most SECONDS long.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >"$WORK/last" 2>&1; do
        ((SECONDS < end)) || { cat "$WORK/last"; return 1; }
        sleep 1
    done
}

# Containers get a store and settings of their own, so that the look-alikes never stand in for real images elsewhere.
containers() {
    export CONTAINERS_STORAGE_CONF=$WORK/storage.conf CONTAINERS_CONF=$WORK/containers.conf BUILDAH_ISOLATION=chroot
    export DISABLE_HC_SYSTEMD=true # health checks are run by hand; podman has no systemd to time them
    [[ -f $CONTAINERS_CONF ]] && return
    cat >"$CONTAINERS_STORAGE_CONF" <<CONF
[storage]
driver = "overlay"
runroot = "$WORK/run"
graphroot = "$WORK/storage"
CONF
    # Limits that a container without CAP_SYS_RESOURCE can set, and cgroups without a systemd.
    cat >"$CONTAINERS_CONF" <<CONF
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "$WORK/networks"
CONF
}

# image reports whether the part of the same name has built it.
image() { buildah images -q "$IMAGE" >/dev/null 2>&1 || { leftout "$1: there is no image"; return 1; }; }
