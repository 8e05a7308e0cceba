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

failed=()
for part in "${parts[@]}"; do
    bash "test/deploy/$part.sh" || failed+=("$part")
done

echo
if [[ -s $WORK/leftout ]]; then cat "$WORK/leftout"; else echo "deploy-test: nothing was left out"; fi
if ((${#failed[@]})); then
    echo "deploy-test: FAILED: ${failed[*]}"
    exit 1
fi
echo "deploy-test: passed: ${parts[*]}"
