#!/usr/bin/env bash
# Makes look-alikes of the Dockerfile's base images, under their names, of what this machine has: Go and a busybox as
# golang:1.26; certificates, time zones and a passwd as distroless. They prove the Dockerfile, not the real bases.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
containers

# base NAME: a new container's folder in $root.
base() {
    container=$(buildah from --name "base-$1" scratch)
    root=$(buildah mount "$container")
    mkdir -p "$root"/{bin,etc/ssl/certs,tmp,root,home/nonroot,usr/bin,usr/local,usr/share}
    chmod 1777 "$root/tmp"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

# named TAG makes the container an image.
named() {
    buildah umount "$container" >/dev/null
    buildah commit -q --rm "$container" "$1" >/dev/null
}

base golang
busybox=$(command -v busybox)
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list | grep -vx busybox); do ln -sf /bin/busybox "$root/bin/$applet"; done
cp -a "$(go env GOROOT)" "$root/usr/local/go"
echo root:x:0:0:root:/root:/bin/sh >"$root/etc/passwd"
buildah config --env PATH=/go/bin:/usr/local/go/bin:/bin:/usr/bin --env GOPATH=/go --env GOTOOLCHAIN=local --workingdir /go "$container"
named docker.io/library/golang:1.26

base distroless
rmdir "$root"/{bin,root,usr/bin,usr/local}
[[ ! -d /usr/share/zoneinfo ]] || cp -a /usr/share/zoneinfo "$root/usr/share/"
printf '%s\n' root:x:0:0:root:/root:/sbin/nologin nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin \
    nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin >"$root/etc/passwd"
printf '%s\n' root:x:0: nobody:x:65534: nonroot:x:65532: >"$root/etc/group"
chown 65532:65532 "$root/home/nonroot"
buildah config --user 65532 --workingdir /home/nonroot --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
named gcr.io/distroless/static-debian12:nonroot
