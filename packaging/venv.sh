#!/usr/bin/env bash
# Makes a Python environment of its own for a script of this folder, and prints its interpreter.
#
#   python=$(packaging/venv.sh NAME REQUIREMENT…)
#
# It lies in .deps/NAME-venv and is made anew where it is broken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s: %s\n' "$name" "$*" >&2; }
name=$1
shift
venv=.deps/$name-venv
python=$venv/bin/python
if ! "$python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        say "installing with apt: python3-venv"
        if [ "$(id -u)" = 0 ]; then root=(env); else root=(sudo); fi
        "${root[@]}" apt-get update -q >&2
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv >&2
    fi
    say "making $venv"
    python3 -m venv "$venv" >&2
fi
"$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: "$@" >&2
echo "$python"
