#!/usr/bin/env bash
# Cuts the power, and lets the disk fail, at every operation of every kind of update, and prints what came of it:
# two tables, one of the cuts and one of the failing disks.
#
#   packaging/power-cuts.sh
#
# The disk is one for tests that records each operation and shows what a cut may leave (src/sys/durable); all
# else is the agent's own code and a repository made by its own publisher (src/agent/survive). A line stands in
# a table only where every check of its scenario held. The lines are kept in target/power-cuts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"

folder=${CARGO_TARGET_DIR:-$PWD/target}/power-cuts
rm -rf "$folder"
mkdir -p "$folder"
if ! EDGEWARDEN_POWER_CUTS=$folder cargo test --locked --lib -- agent::survive >"$folder/log" 2>&1; then
    tail -n 60 "$folder/log" >&2
    exit 1
fi

# Columns: scenario, operations, cuts or failures, then two more numbers.
table() {
    cat "$folder/$1"-* | sort -t' ' -k1,1 | awk -v names="$2" '
        function line(a, b, c, d, e) { printf "%-24s %10s %10s %10s %10s\n", a, b, c, d, e }
        BEGIN { split(names, name, ","); line(name[1], name[2], name[3], name[4], name[5]) }
        { line($1, $2, $3, $4, $5); for (i = 2; i <= 5; i++) sum[i] += $i }
        END { line("all", sum[2], sum[3], sum[4], sum[5]); exit sum[3] < 300 }'
}
table cut "power cuts,operations,cuts,disks,recovered"
echo
table fault "failing disks,operations,failures,refused,recovered"
