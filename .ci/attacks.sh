#!/usr/bin/env bash
# Runs every masking attack, and the ordinary queries that must go on working,
# through a real broker and a real PostgreSQL: roles analyst, owner and super,
# through the native endpoint. Policy allows everything, so that masking alone
# stands between the attacker and the tagged columns.
#   .ci/attacks.sh bin/hoopctl [IDs or options of run_attacks.py …]
set -euo pipefail
hoopctl=$(realpath "$1"); shift
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d /tmp/hoopctl-attacks.XXXXXX)
chmod 711 "$work" # as root, PostgreSQL runs as its own user, which must pass
export HOOPCTL_HOME=$work/home
trap 'kill "$dev" 2>/dev/null; wait "$dev" 2>/dev/null; rm -rf "$work"' EXIT
"$hoopctl" dev --dir "$work/dev" --port 0 --pg-port 0 --ready-file "$work/ready.json" >"$work/dev.log" 2>&1 &
dev=$!
for _ in $(seq 120); do
  [ -s "$work/ready.json" ] && break
  kill -0 "$dev" 2>/dev/null || { cat "$work/dev.log" >&2; exit 1; }
  sleep 0.25
done
ready() { python3 -c 'import json,sys; v=json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."): v=v[k]
print(v)' "$work/ready.json" "$1"; }
direct=$(ready sample.postgres)
super=$(python3 -c 'from urllib.parse import urlparse; import sys; print(urlparse(sys.argv[1]).password)' "$direct")
address=$(python3 -c 'from urllib.parse import urlparse; import sys; u=urlparse(sys.argv[1]); print(f"{u.hostname}:{u.port}")' "$direct")
printf %s "$super" >"$work/super.password"
printf analyst >"$work/analyst.password"
printf owner >"$work/owner.password"
{
  for role in analyst owner super; do
    user=$role; [ $role = super ] && user=postgres
    cat <<EOF
kind: Target
metadata: {name: atk-$role, labels: {suite: attacks}}
spec: {protocol: postgres, address: "$address", database: atk, tls: {mode: disable}, evidence: async, credentials: {username: $user, passwordFrom: {file: $work/$role.password}}}
---
EOF
  done
  cat <<'EOF'
kind: Classification
metadata: {name: attacks}
spec:
  targets: {matchLabels: {suite: attacks}}
  columns:
    - {column: public.patients.ssn, tag: phi, mask: last4}
    - {column: public.visits.ssn, tag: phi, mask: last4}
---
kind: Policy
metadata: {name: attacks}
spec:
  cedar: |
    @id("attacks-anything") permit(principal in Hoop::Group::"engineers", action in [Hoop::Action::"connect", Hoop::Action::"statement"], resource in Hoop::Label::"suite=attacks");
EOF
} >"$work/attacks.yaml"
"$hoopctl" dev login erin --dir "$work/dev" >/dev/null 2>&1
"$hoopctl" apply -f "$work/attacks.yaml"
"$hoopctl" dev login alice --dir "$work/dev" >/dev/null 2>&1
via=()
for role in analyst owner super; do
  url=$("$hoopctl" secret "atk-$role" --for 12h -o uri)
  via+=(--via "$role=${url/sslmode=prefer/sslmode=disable}")
done
python3 "$here/testdata/attacks/run_attacks.py" --direct "${direct%/*}/postgres" "${via[@]}" "$@"
