#!/usr/bin/env bash
# The Dockerfile: built, and its image run with as few rights as there are, up to a request carried out.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
has image buildah podman runc busybox catatonit || exit 0
[[ $(id -u) == 0 ]] || { leftout "image: this needs root"; exit 0; }
containers
strict=(--pull=never --read-only --cap-drop=all --security-opt=no-new-privileges)

say "image: make look-alikes of the base images"
podman image exists gcr.io/distroless/static-debian12:nonroot || bash test/deploy/bases.sh

say "image: build"
go mod download
buildah bud -q --pull-never --format docker --layers --build-arg VERSION=v0.0.0-deploytest --build-arg COMMIT=0123abc \
    --volume "$(go env GOMODCACHE):/go/pkg/mod" --volume "$(go env GOCACHE):/root/.cache/go-build" -t "$IMAGE" \
    -f "$(undigested Dockerfile)" . >/dev/null

version=$(podman run --rm --network=none "${strict[@]}" "$IMAGE" version)
[[ $version == *v0.0.0-deploytest* && $version == *0123abc* ]] || die "image: worker version says $version"
user=$(podman image inspect --format '{{.Config.User}}' "$IMAGE")
[[ $user == 65532* ]] || die "image: it runs as $user"

say "image: run without a network, with a simulated API in the same namespace"
end() { podman rm -f -t 0 image-worker image-api >/dev/null 2>&1 || true; podman volume rm -f image-token image-data >/dev/null 2>&1 || true; }
trap end EXIT
podman run -d --name image-api --network=none "${strict[@]}" -v image-token:/var/lib/worker "$IMAGE" \
    simulate --dir /var/lib/worker >/dev/null
podman run -d --name image-worker --network=container:image-api "${strict[@]}" -v image-data:/var/lib/worker \
    -v image-token:/run/api:ro -e DEFENDER_API_URL=http://127.0.0.1:8443 -e DEFENDER_AUTH=token-file \
    -e DEFENDER_TOKEN_FILE=/run/api/token -e WORKER_POLL_INTERVAL=1s "$IMAGE" >/dev/null
until_true 60 podman healthcheck run image-worker || { podman logs image-worker; die "image: not healthy"; }

pid=$(podman inspect --format '{{.State.Pid}}' image-worker)
for want in 'Uid:	65532' 'CapEff:	0000000000000000' 'NoNewPrivs:	1'; do
    grep -q "^$want" "/proc/$pid/status" || { cat "/proc/$pid/status"; die "image: its process has not $want"; }
done
podman exec image-worker worker submit --machine "$MACHINE" --comment "Cleaned and validated" --wait | grep succeeded >/dev/null ||
    die "image: the request was not carried out"
say "image: resident $(awk '/^VmRSS/ {print int($2 / 1024) " MiB"}' "/proc/$pid/status"), with its own broker"

podman stop -t 40 image-worker >/dev/null
[[ $(podman inspect --format '{{.State.ExitCode}}' image-worker) == 0 ]] || { podman logs image-worker; die "image: it did not end with 0"; }

mount=$(podman image mount "$IMAGE")
say "image: the program is $(du -m --apparent-size "$mount/usr/local/bin/worker" | cut -f1) MiB, the image" \
    "$(podman image inspect --format '{{.Size}}' "$IMAGE" | awk '{print int($1 / 1048576)}') MiB on a look-alike base"
podman image umount "$IMAGE" >/dev/null
tried image
