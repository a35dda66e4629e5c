#!/usr/bin/env bash
# Runs the TUF conformance suite (https://github.com/theupdateframework/tuf-conformance) against the client
# that the agent uses, and prints the counts.
#
#   packaging/tuf-conformance.sh PATH_OF_CHECKED_OUT_SUITE [--as-shipped] [PYTEST ARGUMENT…]
#
# The suite signs with ECDSA on P-256, which the agent does not verify: without --as-shipped the program that
# speaks the suite's protocol (tests/conformance, in no package) does, and RSA besides. With --as-shipped it
# verifies ed25519 alone, as the agent does; the suite then signs with ed25519 wherever a case is not about
# another scheme: one line in a copy of it.
#
# The Python parts are the suite's own, from PyPI, in .deps/tuf-conformance-venv; faketime, which the suite
# needs, is installed with apt where it is missing. What the program said is in target/tuf-conformance/log. The
# exit status is 0 where nothing failed but, with --as-shipped, the cases of other schemes.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
suite=$(cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'tuf-conformance: %s\n' "$*" >&2; }
[ -f "$suite/tuf_conformance/conftest.py" ] || { say "$suite: no checkout of the suite"; exit 64; }

as_shipped=
if [ "${1:-}" = --as-shipped ]; then
    as_shipped=" --as-shipped"
    shift
fi

[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
if ! command -v faketime >/dev/null; then
    say "installing with apt: faketime"
    if [ "$(id -u)" = 0 ]; then root=(env); else root=(sudo); fi
    "${root[@]}" apt-get update -q >&2
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends faketime >&2
fi
# The versions that the suite asks for.
mapfile -t requirements < <(sed -n '/^dependencies = \[/,/^]/s/^ *"\(.*\)",\{0,1\}$/\1/p' "$suite/pyproject.toml")
[ ${#requirements[@]} -gt 0 ] || { say "$suite/pyproject.toml: names no dependencies"; exit 1; }
python=$PWD/$(./packaging/venv.sh tuf-conformance "${requirements[@]}")

say "building the program that speaks the suite's protocol"
client=$(cargo build --locked --example tuf_conformance --message-format json |
    "$python" -c 'import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made["target"]["name"] == "tuf_conformance": print(made["executable"])')

work=$PWD/target/tuf-conformance
rm -rf "$work"
mkdir -p "$work"
cp -r "$suite/tuf_conformance" "$work/"
if [ -n "$as_shipped" ]; then
    # The default of new_signer(), and how many keys of each kind there are.
    "$python" - "$work/tuf_conformance/_internal/repository_simulator.py" <<'PYTHON'
import pathlib, sys
path = pathlib.Path(sys.argv[1])
text = path.read_text()
changed = text.replace(
    'self, keytype: str = "ecdsa", scheme: str = "ecdsa-sha2-nistp256"', 'self, keytype: str = "ed25519", scheme: str = "ed25519"'
)
if changed == text:
    sys.exit("tuf-conformance: new_signer() of this version of the suite looks different; look at it")
path.write_text(changed)
PYTHON
fi

cd "$work"
"$python" -m pytest -q -ra --tb=no -p no:cacheprovider --json-report --json-report-file="$work/report.json" \
    tuf_conformance --entrypoint "$client$as_shipped" "$@" >"$work/log" 2>&1 || true
[ -f "$work/report.json" ] || { tail -n 30 "$work/log" >&2; exit 1; }
"$python" - "$work/report.json" "$as_shipped" <<'PYTHON'
import json, sys
report, as_shipped = json.load(open(sys.argv[1])), sys.argv[2]
# Other schemes, and the two repositories that are signed with them.
expected = ("test_keytype_and_scheme[rsa/", "test_keytype_and_scheme[ecdsa/", "test_static_repository[")
failed = [test["nodeid"].split("::")[-1] for test in report["tests"] if test["outcome"] != "passed"]
own = sum("test_repository_simulator.py" in test["nodeid"] for test in report["tests"])
known = [name for name in failed if as_shipped and name.startswith(expected)]
for name in failed:
    print(f"failed{', as expected' if name in known else ''}: {name}")
total = len(report["tests"])
print(f"cases {total} ({own} of them about the suite itself), passed {total - len(failed)}, failed {len(failed)}")
sys.exit(len(known) != len(failed) or total == own)
PYTHON
