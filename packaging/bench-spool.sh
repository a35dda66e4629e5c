#!/usr/bin/env bash
# What the spool writes to the disk for each message, one at a time and many at once, and how many a second.
#
#   [PROGRAM=...] [DIR=...] [MESSAGES=2000] [BYTES=700] packaging/bench-spool.sh
#
# PROGRAM names the benchmark `spool` that is built already; DIR is a folder on the disk that is asked (a card, say).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=${PROGRAM:-$(packaging/bench-program.sh spool)}
folder=$(mktemp -d "${DIR:-${TMPDIR:-/var/tmp}}/bench-spool.XXXXXX")
trap 'rm -rf "$folder"' EXIT
"$program" "$folder" "${MESSAGES:-2000}" "${BYTES:-700}"
