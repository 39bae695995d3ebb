#!/usr/bin/env bash
# No vulnerable symbol of a dependency can be reached. The database is the
# folder testdata/osv, so that this works offline; the whole one is asked too
# where it can be reached. A program that does call such a symbol must be
# reported, or the check is broken.
set -euo pipefail
tool=$1
db=file://$PWD/testdata/osv
go run "$tool" -db "$db" ./...
if go run "$tool" -db "$db" ./testdata/vulnerable >/tmp/vulnerable.$$ 2>&1; then
  echo "govulncheck does not report testdata/vulnerable: the check is broken" >&2
  exit 1
fi
grep -q GO-2026-4518 /tmp/vulnerable.$$ || { cat /tmp/vulnerable.$$ >&2; exit 1; }
rm -f /tmp/vulnerable.$$
if timeout 10 curl -sfo /dev/null https://vuln.go.dev/index/db.json; then
  go run "$tool" ./...
else
  echo "vuln.go.dev cannot be reached from here: checked against testdata/osv only"
fi
