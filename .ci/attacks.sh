#!/usr/bin/env bash
# Runs every masking attack, and the ordinary queries that must go on working,
# through a real broker and a real PostgreSQL: roles analyst, owner and super,
# through the native endpoint and through a forward. Policy allows everything, so
# that masking alone stands between the attacker and the tagged columns.
#   .ci/attacks.sh bin/hoopctl [IDs or options of run_attacks.py …]
# With --quick, the forward sees a third of them: what it adds is the way, not
# the masking. With --compose, each attack is also tried with its values encoded.
set -euo pipefail
command -v python3 >/dev/null || { echo "attacks: python3 is missing; it runs the attacks" >&2; exit 1; }
hoopctl=$(realpath "$1"); shift
third=(); if [ "${1:-}" = --quick ]; then third=(--every 3); shift; fi
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d /tmp/hoopctl-attacks.XXXXXX)
chmod 711 "$work" # as root, PostgreSQL runs as its own user, which must pass
export HOOPCTL_HOME=$work/home
dev= forward=
trap 'kill $forward $dev 2>/dev/null || true; wait $forward $dev 2>/dev/null || true; rm -rf "$work"' EXIT
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
"$hoopctl" apply -f "$work/attacks.yaml" >/dev/null
"$hoopctl" dev login alice --dir "$work/dev" >/dev/null 2>&1
native=() forwarded=()
for role in analyst owner super; do
  url=$("$hoopctl" secret "atk-$role" --for 12h -o uri 2>/dev/null)
  native+=(--via "$role=${url/sslmode=prefer/sslmode=disable}")
done
attacks() { python3 "$here/testdata/attacks/run_attacks.py" --direct "${direct%/*}/postgres" "$@"; }
echo "native endpoint:"
attacks "${native[@]}" "$@"

"$hoopctl" connect atk-analyst atk-owner atk-super --port 0 --ready-file "$work/forward.json" >/dev/null 2>"$work/forward.log" &
forward=$!
for _ in $(seq 120); do
  [ -s "$work/forward.json" ] && break
  kill -0 "$forward" 2>/dev/null || { cat "$work/forward.log" >&2; exit 1; }
  sleep 0.25
done
for role in analyst owner super; do
  forwarded+=(--via "$role=$(python3 -c 'import json,sys
print(next(p["url"] for p in json.load(open(sys.argv[1])) if p["target"] == "atk-"+sys.argv[2]))' "$work/forward.json" $role)")
done
echo "forward:"
attacks "${forwarded[@]}" ${third[@]+"${third[@]}"} "$@"
