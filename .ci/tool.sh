#!/bin/sh
# tool.sh MODULE@VERSION ARGS… runs a Go tool at that version. Where it cannot
# be had (no network and not in the module cache) it says so, loudly, and
# passes: the tool's verdict is missing, the code is not wrong.
set -u
tool=$1
shift
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if ! GOBIN="$dir/bin" GOFLAGS= go install "$tool" 2>"$dir/error"; then
	if [ -z "${CI_TOOLS_REQUIRED:-}" ] && grep -qE 'dial tcp|no such host|connection refused|i/o timeout|lookup disabled|proxyconnect' "$dir/error"; then
		echo "!! SKIPPED: $tool cannot be had on this machine:" >&2
		tail -2 "$dir/error" >&2
		exit 0
	fi
	cat "$dir/error" >&2
	exit 1
fi
echo "$tool $*"
"$dir"/bin/* "$@"
