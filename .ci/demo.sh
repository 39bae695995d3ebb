#!/usr/bin/env bash
# Walks the main job with real parts and real commands: log in, connect, psql
# sees masked rows, a DROP is refused, an UPDATE of every row waits until bob
# approves it, replay, verify, a tampered byte. It prints each command and what
# it shows, asks nothing, and leaves nothing running.
#   .ci/demo.sh bin/hoopctl
set -euo pipefail
bin=$(realpath "$1")
work=$(mktemp -d "${TMPDIR:-/tmp}/hoopctl-demo.XXXXXX")
chmod 711 "$work" # as root, PostgreSQL runs as its own user, which must pass
cd "$work"
export PATH=$(dirname "$bin"):$PATH PAGER=cat PSQLRC=/dev/null
dev= connect=
finish() {
  code=$?
  [ -n "$connect" ] && kill "$connect" 2>/dev/null
  [ -n "$dev" ] && kill "$dev" 2>/dev/null && wait "$dev" 2>/dev/null
  [ $code = 0 ] || { echo; echo "the demo failed; dev said:"; tail -20 dev.log 2>/dev/null; }
  cd / && rm -rf "$work"
  exit $code
}
trap finish EXIT

title() { if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n## %s\n' "$*"; fi; }
# as USER COMMAND… runs a command with that user's own login.
as() { local user=$1; shift; HOOPCTL_HOME=$work/$user "$@"; }
# show USER COMMAND… prints a command, then runs it.
show() { local user=$1; shift; printf '%s$ %s\n' "$user" "$*"; as "$user" "$@" 2>&1; }
# refused USER CODE COMMAND… must end with that exit code.
refused() {
  local user=$1 want=$2 code=0; shift 2
  show "$user" "$@" || code=$?
  [ $code = "$want" ] || { echo "exit code $code, want $want"; exit 1; }
  echo "(exit code $code)"
}
# until FILE-TEST…: waits for something to be there, 30 s at most.
await() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "waited in vain for: $*"; exit 1; }

title "The whole house on one machine"
echo '$ hoopctl dev --dir clinic'
hoopctl dev --dir clinic --port 0 --pg-port 0 --ready-file ready.json >dev.log 2>&1 &
dev=$!
await test -s ready.json
sed -n '/^Ready/p;/^USER/,/^$/p' dev.log
for user in alice bob dave erin; do as $user hoopctl dev login $user --dir clinic 2>/dev/null; done

title "alice, an engineer, logs in and connects"
show alice hoopctl dev login alice --dir clinic
show alice hoopctl get targets
echo 'alice$ hoopctl connect clinic'
as alice hoopctl connect clinic >url 2>connect.err &
connect=$!
await test -s url
url=$(cat url)
sed 's#//hoopctl:[^@]*@#//hoopctl:…@#' url
cat connect.err

title "psql, unmodified: PHI comes masked"
show alice psql "$url" -c 'SELECT id, name, ssn, dob, zip, mrn, diagnosis FROM patients ORDER BY id LIMIT 3' | sed 's#//hoopctl:[^@]*@[^ ]*#…#'

title "What policy forbids is refused, and the connection goes on"
show alice psql "$url" -c 'DROP TABLE visits' -c 'SELECT 1 AS still_here' | sed 's#//hoopctl:[^@]*@[^ ]*#…#' || true
refused alice 121 hoopctl exec clinic -c 'DROP TABLE visits'

title "What touches every row waits for a person"
echo "alice\$ psql … -c \"UPDATE patients SET diagnosis = 'I10'\""
as alice psql "$url" -c "UPDATE patients SET diagnosis = 'I10'" >held 2>&1 &
held=$!
await grep -q 'waiting for approval' held
request=$(grep -o 'r-[0-9]*' held | head -1)
cat held
refused alice 121 hoopctl approve "$request" --reason "it is mine"
show bob hoopctl get requests
show bob hoopctl approve "$request" --reason "ticket OPS-7"
wait $held
echo 'alice (the same psql, going on):'
tail -1 held

title "A script, and a person who says no"
show alice hoopctl exec clinic -o json -c 'SELECT id, ssn FROM patients WHERE id = 7'
as alice hoopctl exec clinic -c 'DELETE FROM visits' >denied 2>&1 &
held=$!
await grep -q 'waiting for approval' denied
request=$(grep -o 'r-[0-9]*' denied | head -1)
show bob hoopctl deny "$request" --reason "archive first"
code=0; wait $held || code=$?
echo "alice\$ hoopctl exec clinic -c 'DELETE FROM visits'"
cat denied
echo "(exit code $code)"
[ $code = 121 ]

title "A service's unmodified driver, at the server's own PostgreSQL port"
echo 'alice$ hoopctl secret clinic --for 1m'
native=$(as alice hoopctl secret clinic --for 1m 2>/dev/null)
echo "$native" | sed 's#:[^:@]*@#:…@#'
as alice psql "$native" -c 'SELECT id, email FROM patients WHERE id = 7'

title "erin revokes the grant: what lives by it ends"
grant=$(as alice hoopctl get grants -o json | python3 -c 'import json,sys; print([g["metadata"]["name"] for g in json.load(sys.stdin)["items"] if g["status"]["phase"]=="active"][0])' 2>/dev/null || echo g-1)
show erin hoopctl delete grant "$grant" --reason "audit week" --no-input
wait $connect || echo "(alice's connect ended with exit code $?)"
connect=

title "dave, an auditor: who, when, what"
show dave hoopctl audit search --target clinic --limit 8
session=$(as dave hoopctl audit search --request "$(grep -o 'r-[0-9]*' held | head -1)" -o json | grep -o '"session": *"s-[0-9]*"' | head -1 | grep -o 's-[0-9]*')
show dave hoopctl replay "$session"
show dave hoopctl replay "$session" --identity clinic/auditor.key
show dave hoopctl audit verify

title "One byte of the evidence is changed"
log=$(ls clinic/evidence/log/* | head -1)
echo "\$ printf X | dd of=$log bs=1 seek=2000 conv=notrunc"
printf X | dd of="$log" bs=1 seek=2000 conv=notrunc 2>/dev/null
refused dave 1 hoopctl audit verify clinic/evidence

title "That was the main job. Nothing is left running."
