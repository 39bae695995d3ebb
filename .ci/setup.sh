#!/usr/bin/env bash
# What the tests, the demo and `hoopctl dev` need of the system: PostgreSQL's
# server programs. As root on a Debian system they are installed; elsewhere the
# message says what to run.
set -euo pipefail

have_postgres() {
  [ -n "${HOOPCTL_PG_BIN:-}" ] && [ -x "$HOOPCTL_PG_BIN/initdb" ] && return
  command -v initdb >/dev/null && return
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

install() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $*" >&2
    DEBIAN_FRONTEND=noninteractive apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
  else
    echo "missing: $*" >&2
    echo "run: sudo apt-get install $*   (or your system's packages of the same; or set HOOPCTL_PG_BIN)" >&2
    exit 1
  fi
}

have_postgres || install postgresql postgresql-client
command -v psql >/dev/null || install postgresql-client
