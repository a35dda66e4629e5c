#!/usr/bin/env bash
# Makes the Debian packages of the agent and of ONNX Runtime, for one architecture or for both, on either.
#
#   packaging/build-debs.sh [OPTION...]
#     --arch amd64|arm64|all   which; default: all
#     --out FOLDER             where to; default: target/packages
#     --version V              another version than that of Cargo.toml, such as one to try an upgrade with
#     --binary FILE            packs this program instead of building one (with one --arch), to try a package quickly:
#                              its glibc is told and not held
#     --native FILE            a program for this machine, of the same sources, that makes the pages and completions,
#                              where one for another is packed alone; else one is built
#     --agent-only             leaves ONNX Runtime's packages out
#     --quick                  for a trial: packs loosely, and leaves out the list of parts and lintian
#     --check                  packs each agent a second time, from the same program, and compares the two packages
#
# cross/build.sh makes the programs, for glibc 2.31 whatever this machine has. Beside each package of the agent lies
# its list of parts (CycloneDX). What is wrong for lintian makes it fail. The date in the packages is that of the
# commit, or SOURCE_DATE_EPOCH; one commit, one toolchain and one
# name of the folder give the same bytes.
set -euo pipefail
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

# Devices that the agent is for start with JetPack 5 (Ubuntu 20.04) and Debian 11. As in Depends.
oldest_glibc=2.31
# What the program should not outgrow, bytes. Told, not held: a larger one works as well.
largest=10000000

say() { printf 'build-debs: %s\n' "$*" >&2; }
die() { printf 'build-debs: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '4,15s/^# \{0,3\}//p' "${BASH_SOURCE[0]}" >&2; exit 64; }

arches='amd64 arm64' out=target/packages version='' given='' native='' agent_only=no quick=no check=no
while [ $# -gt 0 ]; do
    case $1 in
    --arch | --out | --version | --binary | --native) [ $# -ge 2 ] || usage ;;&
    --arch)
        case $2 in amd64 | arm64) arches=$2 ;; all) ;; *) usage ;; esac
        shift ;;
    --out) out=$2; shift ;;
    --version) version=$2; shift ;;
    --binary) given=$(realpath "$2") || die "$2: no such file"; shift ;;
    --native) native=$(realpath "$2") || die "$2: no such file"; shift ;;
    --agent-only) agent_only=yes ;;
    --quick) quick=yes ;;
    --check) check=yes ;;
    *) usage ;;
    esac
    shift
done
[ -z "$given" ] || [ "$arches" != 'amd64 arm64' ] || usage

if [ $quick = yes ]; then packaging/setup.sh --cargo-deb; else packaging/setup.sh --packages; fi
PATH=$root/.deps/tools/bin:$PATH
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"

: "${version:=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}"
# Debian sorts 0.2.0~rc.1 before 0.2.0.
debian_version=${version/-/\~}
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || { [ $quick = yes ] && date +%s; }) ||
        die "this is no clone with a commit to take the date from: set SOURCE_DATE_EPOCH (seconds since 1970)"
    [ -z "$(git status --porcelain)" ] || say "the tree has changes that are in no commit; the packages will have them too"
fi
export SOURCE_DATE_EPOCH

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"
out=$(realpath "$out")

machine_of() { case $1 in amd64) echo x86_64 ;; arm64) echo aarch64 ;; esac; }
triple_of() { echo "$(machine_of "$1")-unknown-linux-gnu"; }

# The program for $1, stripped, at $scratch/programs/$1: once.
program() {
    local built machine target=$scratch/programs/$1
    [ ! -e "$target" ] || return 0
    machine=$(machine_of "$1")
    if [ -n "$given" ] && [ "$1" = "$arches" ]; then
        built=$given
    else
        say "building for $1"
        built=$(cross/build.sh "$machine" | tail -n1)
        [ -f "$built" ] || die "cross/build.sh $machine ended well and named no file: '$built'"
    fi
    mkdir -p "${target%/*}"
    # Named by its processor: the strip of another destroys a program, or refuses it.
    "$machine-linux-gnu-strip" --strip-all --remove-section=.comment --remove-section=.note -o "$target" "$built"
    chmod 755 "$target"
}

# What Depends promises, read from the program itself.
inspect() {
    local file=$scratch/programs/$1 size limit=$oldest_glibc floor
    [ -z "$given" ] || limit=2.99
    floor=$(cross/floor.sh "$file" "$(machine_of "$1")" "$limit") || exit 1
    # All other libraries that it lets pass are glibc's.
    if LC_ALL=C readelf --dynamic --wide "$file" | grep -q 'NEEDED.*\[libgcc_s\.' && ! grep -q '^    "libgcc-s1' Cargo.toml; then
        die "the program for $1 needs libgcc_s.so.1: add libgcc-s1 to depends in Cargo.toml"
    fi
    size=$(stat -c %s "$file")
    say "program for $1: $size bytes of the $largest that it should have at most, glibc $floor or newer"
    [ "$size" -le "$largest" ] || say "program for $1: that is $((size - largest)) bytes too many"
    LC_ALL=C readelf --section-headers --wide "$file" | grep -q '\.dep-v0' ||
        say "program for $1: built without cargo-auditable, so it does not name its crates"
}

# A program that runs here, for what is made by the program itself: pages and completions.
runs_here() {
    local here
    if [ -n "$native" ]; then echo "$native"; return; fi
    if "$scratch/programs/$1" --version >/dev/null 2>&1; then echo "$scratch/programs/$1"; return; fi
    case $(uname -m) in x86_64) here=amd64 ;; aarch64) here=arm64 ;; *) die "cannot run the program for $1 here" ;; esac
    [ "$here" != "$1" ] || die "the program for $1 does not run here: $("$scratch/programs/$1" --version 2>&1 | head -n1)"
    program "$here"
    echo "$scratch/programs/$here"
}

# Packs the agent for $1 into $2.
pack() {
    local arch=$1 to=$2 triple stage files agent
    triple=$(triple_of "$arch")
    stage=$(mktemp -d "$scratch/stage.XXXXXX")
    files=$stage/$triple/release/package
    mkdir -p "$files"
    cp "$scratch/programs/$arch" "$stage/$triple/release/edgewarden"
    agent=$(runs_here "$arch")
    "$agent" man "$files/man"
    for shell in bash zsh fish; do "$agent" completions $shell >"$files/edgewarden.$shell"; done
    python3 packaging/deb_changelog.py packaging/CHANGELOG.md "$version" "$SOURCE_DATE_EPOCH" >"$files/changelog"
    cargo metadata --locked --format-version 1 --filter-platform "$triple" | python3 packaging/notices.py >"$files/third-party"
    # Debian wants them so; without name and date.
    gzip --no-name -9 "$files"/man/*.1 "$files/changelog" "$files/third-party"
    local options=(--quiet --locked --no-build --no-strip --target "$triple")
    [ $quick = no ] || options+=(--fast)
    CARGO_TARGET_DIR=$stage cargo deb "${options[@]}" --deb-version "$debian_version" --output "$to" >/dev/null
    rm -rf "$stage"
}

# The list of parts of the program for $1, as the file $2.
parts() {
    local triple tree=$scratch/parts
    triple=$(triple_of "$1")
    # The tool writes beside the manifest, and so must not be let into the clone.
    rm -rf "$tree" && mkdir "$tree"
    cp -r Cargo.toml Cargo.lock src benches tests "$tree/"
    (cd "$tree" && cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target "$triple" --override-filename parts)
    # Where the copy lay is nobody's business.
    sed "s|path+file://$tree|path+file:///edgewarden|g" "$tree/parts.json" >"$2"
}

made=()
for arch in $arches; do
    program "$arch"
    inspect "$arch"
    deb=$out/edgewarden_${debian_version}_$arch.deb
    pack "$arch" "$deb"
    made+=("$deb")
    if [ "$check" = yes ]; then
        # What differs between machines: rights of new files, zone, language, processors.
        (umask 077; TZ=Pacific/Kiritimati LC_ALL=C RAYON_NUM_THREADS=1 pack "$arch" "$scratch/again.deb")
        cmp "$deb" "$scratch/again.deb" || die "$arch: two packages from one program differ"
        say "packed twice for $arch from one program: the same bytes"
    fi
    [ $quick = yes ] || parts "$arch" "${deb%.deb}.cdx.json"
    if [ "$agent_only" = no ]; then
        # The wheel's own date: the same package whichever commit it is made from.
        env -u SOURCE_DATE_EPOCH packaging/onnxruntime-deb.sh --out "$scratch/runtime" --fetch "$arch"
        for deb in "$scratch"/runtime/*.deb; do
            mv "$deb" "$out/"
            made+=("$out/${deb##*/}")
        done
    fi
done

if [ $quick = no ]; then
    say "lintian"
    # Ubuntu's own profile asks for Ubuntu's maintainers.
    lintian --allow-root --profile debian --fail-on error --fail-on warning --tag-display-limit 0 "${made[@]}"
fi

cd "$out"
for deb in "${made[@]}"; do
    printf '%9d  %s  %s\n' "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)" "${deb##*/}"
done
