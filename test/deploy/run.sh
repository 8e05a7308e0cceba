#!/usr/bin/env bash
# make deploy-test: what is in deploy, run as its users run it. Without arguments all parts, else those named. A part that
# fails fails the whole; what can't be tried here is said, and listed at the end. DEPLOY_TEST_DIR keeps its images for the
# next time.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
parts=("$@")
((${#parts[@]})) || parts=(image chart compose systemd)

WORK=${DEPLOY_TEST_DIR:-$(mktemp -d)}
export WORK
mkdir -p "$WORK"
discard() {
    if command -v findmnt >/dev/null; then
        findmnt -rno TARGET | grep "^$WORK/" | sort -r | xargs -r umount 2>/dev/null
    fi
    [[ -n ${DEPLOY_TEST_DIR:-} ]] || rm -rf "$WORK"
}
trap discard EXIT
: >"$WORK/leftout"
: >"$WORK/tried"

failed=()
for part in "${parts[@]}"; do
    bash "test/deploy/$part.sh" || failed+=("$part")
done

# What was tried and what was not, piece by piece: a part that left itself out has passed nothing.
list() { paste -sd, "$1" | sed 's/,/, /g'; }
echo
cut -d: -f1 "$WORK/leftout" | sort -u >"$WORK/pieces"
tried=$(list "$WORK/tried")
missing=$(list "$WORK/pieces")
if [[ -s $WORK/leftout ]]; then
    echo "deploy-test: left out:"
    sed 's/^/  /' "$WORK/leftout"
fi
if ((${#failed[@]})); then
    echo "deploy-test: FAILED: ${failed[*]}; passed: ${tried:-nothing}; not tried: ${missing:-nothing else}"
    exit 1
fi
if [[ -z $tried ]]; then
    echo "deploy-test: nothing could be tried here; deploy/README.md has what it needs"
    exit 1
fi
echo "deploy-test: passed: $tried; not tried: ${missing:-nothing}"
