#!/usr/bin/env bash
# Fuzzes the parsers that see what others wrote (fuzz/), within bounds, and prints a table.
#
#   packaging/fuzz.sh [--minutes N] [--jobs N] [--build] [--keep] [TARGET…]
#
# --minutes N   for each target (default 10)
# --jobs N      targets at a time (default 1); the column cpu_s tells what each had of the processors
# --build       only builds
# --keep        minimises what was found so far into fuzz/corpus, which is committed and replayed by the tests
#
# Needs cargo-fuzz (`cargo install --locked cargo-fuzz`) and a C++ compiler, but no nightly compiler. What is found
# lies in target/fuzz/corpus, a crash in target/fuzz/artifacts: put its file into fuzz/corpus/TARGET, so that the
# tests fail, and mend it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"

minutes=10 jobs=1 build=false keep=false targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift ;;
    --build) build=true ;;
    --keep) keep=true ;;
    -*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
    *) targets+=("$1") ;;
    esac
    shift
done
if [ ${#targets[@]} -eq 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for target in "${targets[@]}"; do
    [ -f "fuzz/fuzz_targets/$target.rs" ] || { echo "fuzz.sh: no target $target in fuzz/fuzz_targets" >&2; exit 64; }
done

# Longest input, bytes. A tar is made of blocks of 512; the rest is long enough for what each parser can tell apart.
max_len() {
    case $1 in
    archive | repository | frame | delta) echo 16384 ;;
    command) echo 2048 ;;
    array | samples) echo 4096 ;;
    *) echo 8192 ;;
    esac
}

out=$PWD/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
programs=$out/$host/release

# A build is made where none is, or where it was asked for.
missing=$build
for target in "${targets[@]}"; do [ -x "$programs/$target" ] || missing=true; done
if $missing; then
    cargo fuzz --version >/dev/null 2>&1 || {
        echo "fuzz.sh: cargo-fuzz is missing; run 'cargo install --locked cargo-fuzz'" >&2
        exit 1
    }
    # The versions that are shipped, not the newest.
    cp Cargo.lock fuzz/Cargo.lock
    # The compiler's instruments count as unstable, which this allows. The C libraries (JPEG) are watched as well.
    env_name=${host//-/_}
    RUSTC_BOOTSTRAP=1 env "CFLAGS_$env_name=-fsanitize=address -g1" \
        cargo fuzz build --fuzz-dir fuzz --target-dir "$out" --target "$host" >&2
fi
if $build; then exit 0; fi

number() { sed -n "s/^stat::$2: *//p" "$1" | tail -n 1; }

# The fewest and smallest inputs that reach all that was reached. Together below 1 MiB: 64 KiB for each target.
keep_of() {
    local target=$1 seeds=$2 found=$3 artifacts=$4 room=65536 size name file
    rm -rf "$out/kept"
    mkdir "$out/kept"
    "$programs/$target" -merge=1 "${bounds[@]}" "$out/kept" "$seeds" "$found" >"$out/logs/$target.merge" 2>&1
    rm -f "$seeds"/*
    while read -r size name; do
        room=$((room - size))
        [ $room -ge 0 ] || break
        cp "$out/kept/$name" "$seeds/"
    done < <(find "$out/kept" -type f -printf '%s %f\n' | sort -n)
    # What once crashed stays, whatever it reaches.
    for file in "$artifacts"/*; do [ ! -f "$file" ] || cp "$file" "$seeds/"; done
    printf '%-15s %s\n' "$target" "$(find "$seeds" -type f | wc -l) inputs, $(du -cb "$seeds"/* | tail -n 1 | cut -f 1) bytes"
}

# Runs one target and prints its line. Fails with the target.
fuzz_one() {
    local target=$1 seeds=$2 found=$3 artifacts=$4 log=$out/logs/$1.log before crashes features began=$SECONDS failed=0
    before=$(find "$artifacts" -type f | wc -l)
    TIMEFORMAT=%U
    cpu=$({ time "$programs/$target" "${bounds[@]}" "-max_total_time=$((minutes * 60))" -print_final_stats=1 \
        -artifact_prefix="$artifacts/" "$found" "$seeds" >"$log" 2>&1; } 2>&1) || failed=1
    crashes=$(($(find "$artifacts" -type f | wc -l) - before))
    features=$(sed -n 's/.* ft: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    printf '%-15s %8s %8.0f %12s %8s %7s %9s %8s %7s\n' "$target" $((SECONDS - began)) "$cpu" \
        "$(number "$log" number_of_executed_units)" "$(find "$found" -type f | wc -l)" \
        "$(number "$log" new_units_added)" "${features:-0}" "$(number "$log" peak_rss_mb)" "$crashes"
    return $failed
}

failed=0 running=()
if ! $keep; then
    printf '%-15s %8s %8s %12s %8s %7s %9s %8s %7s\n' \
        target seconds cpu_s runs corpus new features peak_MB crashes
fi
for target in "${targets[@]}"; do
    folders=("fuzz/corpus/$target" "$out/corpus/$target" "$out/artifacts/$target")
    mkdir -p "${folders[@]}" "$out/logs"
    bounds=("-max_len=$(max_len "$target")" -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=25)
    if $keep; then
        keep_of "$target" "${folders[@]}"
        continue
    fi
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    fuzz_one "$target" "${folders[@]}" &
    running+=($!)
done
for pid in "${running[@]}"; do wait "$pid" || failed=1; done
exit $failed
