#!/usr/bin/env bash
# Checks that a program starts on every system that it is meant for: its processor, the oldest glibc that has all the
# symbols it asks for, and no libraries that a small system lacks.
#
#   cross/floor.sh PROGRAM x86_64|aarch64 [GLIBC]
#
# Prints the glibc that it needs. GLIBC is the newest that may be needed: 2.31, JetPack 5's.
set -euo pipefail
export LC_ALL=C.UTF-8

die() { printf 'floor: %s\n' "$*" >&2; exit 1; }
[ $# -ge 2 ] || { sed -n '5s/^#   //p' "${BASH_SOURCE[0]}" >&2; exit 64; }
program=$1 machine=$2 most=${3:-2.31}
command -v readelf >/dev/null || die "readelf is missing: apt-get install binutils, then run this again"

header=$(readelf --file-header "$program" 2>&1) || die "$program is no program: $(tail -n1 <<<"$header")"
case $machine in
x86_64) name='Advanced Micro Devices X86-64' ;;
aarch64) name='AArch64' ;;
*) die "$machine: use x86_64 or aarch64" ;;
esac
found=$(sed -n 's/^ *Machine: *//p' <<<"$header")
[ "$found" = "$name" ] || die "$program is for $found, not for $name"

# glibc and its loader; libgcc_s is on every Debian, and in the way of nobody.
for library in $(readelf --dynamic --wide "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p'); do
    case $library in
    libc.so.6 | libm.so.6 | libpthread.so.0 | libdl.so.2 | librt.so.1 | libgcc_s.so.1 | ld-linux*.so.*) ;;
    *) die "$program needs $library, which a device may lack: link it in" ;;
    esac
done

newest() { sort --version-sort | tail -n1; }
versions=$(readelf --version-info --wide "$program" | grep -o 'GLIBC_[0-9A-Z_.]*' | sort -u)
case $versions in
*GLIBC_PRIVATE*) die "$program uses private symbols of one glibc: it starts only with that one" ;;
# Has no number: packed relocations, which the loader of 2.36 was the first to understand.
*GLIBC_ABI_DT_RELR*) die "$program has packed relocations, which need glibc 2.36: link without -z pack-relative-relocs" ;;
esac
needs=$(sed -n 's/^GLIBC_\([0-9.]*\)$/\1/p' <<<"$versions" | newest)
[ -n "$needs" ] || die "$program asks for no version of glibc: it is linked in another way than ours"
if [ "$(printf '%s\n' "$needs" "$most" | newest)" != "$most" ]; then
    symbols=$(readelf --dyn-syms --wide "$program" | grep -o "[^ ]*@GLIBC_$needs\b" | sort -u | tr '\n' ' ')
    die "$program needs glibc $needs, and $most is the newest that may be needed; for: $symbols"
fi
echo "$needs"
