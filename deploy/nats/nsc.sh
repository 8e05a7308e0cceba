#!/bin/sh
# Makes the accounts and users of permissions.conf as JWTs, with nsc (https://github.com/nats-io/nsc), under the operator
# that nsc has selected:
#
#   nsc add operator --name contoso --sys    (if there is none yet)
#   sh nsc.sh DIR
#
# DIR gets a ROLE.creds for each role (NATS_CREDS) and resolver.conf, for server.conf to include in the place of
# users.conf. The creds are secrets. An account that exists already is an error: nothing is altered.
set -eu
umask 077
lists=$(dirname "$0")/permissions.conf
dir=${1:?where to write: sh nsc.sh DIR}
mkdir -p "$dir"

# subjects LIST KEY: what LIST allows under KEY (publish, subscribe), comma-separated.
subjects() {
  awk -v list="$1" -v key="$2" '
    $1 == list && $2 == "{" { inside = 1; next }
    inside && /^}/ { exit }
    inside && $1 == "publish" { in_key = (key == "publish") }
    inside && $1 == "subscribe" { in_key = (key == "subscribe") }
    inside && in_key { while (match($0, /"[^"]+"/)) { print substr($0, RSTART + 1, RLENGTH - 2); $0 = substr($0, RSTART + RLENGTH) } }
  ' "$lists" | paste -sd, -
}

user() { # ACCOUNT ROLE LIST
  nsc add user --account "$1" --name "$2" --allow-pub "$(subjects "$3" publish)" --allow-sub "$(subjects "$3" subscribe)"
  nsc generate creds --account "$1" --name "$2" >"$dir/$2.creds"
}

# entries LIST: the lines of a list of exports or imports.
entries() { awk -v list="$1" '$1 == list { inside = 1; next } inside && /^]/ { exit } inside' "$lists"; }

# export_ SUBJECT KIND [RESPONSES]: exports to the accounts that have an activation.
export_() {
  flag=
  if [ "$2" = service ]; then flag="--service --response-type ${3:-Singleton}"; fi
  # shellcheck disable=SC2086 # several words
  nsc add export --account REMEDIATION --name "$1" --subject "$1" --private $flag
}

# import_ ACCOUNT SUBJECT [LOCAL]: activates the export for that account only, and imports it there.
import_() {
  nsc generate activation --account REMEDIATION --subject "$2" --output-file "$dir/activation.jwt" \
    --target-account "$(nsc describe account --name "$1" --json --field sub | tr -d '"')"
  nsc add import --account "$1" --name "$2" --token "$dir/activation.jwt" --local-subject "${3:-$2}"
  rm "$dir/activation.jwt"
}

for account in REMEDIATION OPERATOR APPROVER INTAKE PUBLISHER READER AUDITOR; do
  nsc add account --name "$account"
  case $account in
  REMEDIATION | READER | AUDITOR)
    nsc edit account --name "$account" --js-disk-storage -1 --js-mem-storage -1 --js-streams -1 --js-consumer -1
    ;;
  esac
done

user REMEDIATION worker WORKER_MAY
user REMEDIATION provisioner PROVISIONER_MAY
user OPERATOR operator OPERATOR_MAY
user APPROVER approver APPROVER_MAY
user INTAKE intake INTAKE_MAY
user INTAKE intake-provisioner INTAKE_PROVISIONER_MAY
user PUBLISHER publisher PUBLISHER_MAY
user PUBLISHER publisher-urgent PUBLISHER_URGENT_MAY
user READER reader READER_MAY
user READER reader-provisioner READER_PROVISIONER_MAY
user AUDITOR auditor AUDITOR_MAY
user AUDITOR auditor-provisioner AUDITOR_PROVISIONER_MAY

entries REMEDIATION_EXPORTS | awk '{ split($0, part, "\""); type = ""; if ($4 == "response_type:") type = $5; sub(/,/, "", type); print $2, part[2], type }' |
  while read -r kind subject responses; do
    export_ "$subject" "${kind%:}" "$responses"
  done
for account in OPERATOR APPROVER INTAKE PUBLISHER READER AUDITOR; do
  entries "${account}_IMPORTS" | awk '{ split($0, part, "\""); print part[2], part[4] }' | while read -r subject local; do
    import_ "$account" "$subject" "$local"
  done
done

nsc generate config --mem-resolver --config-file "$dir/resolver.conf" --force
