#!/usr/bin/env bash
# Unpacks packages of Debian 12, for any processor, into a folder: nothing is installed, and it needs no root.
#
#   cross/debian.sh FOLDER PACKAGE[:ARCH][=VERSION|/SUITE][+]…
#
# Only the named ones, and with a + what they depend on, but for the libraries of C and C++. apt fetches them and checks their signatures, with lists and a cache of
# its own in .deps/debian. What is there already is not fetched again; delete the folder to get newer ones.
#
# The mirrors are those of this machine where it is a Debian; elsewhere name them in DEBIAN_MIRROR and
# DEBIAN_SECURITY_MIRROR, and install debian-archive-keyring.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'debian: %s\n' "$*" >&2; }
die() { printf 'debian: %s\n' "$*" >&2; exit 1; }
[ $# -ge 2 ] || { sed -n '4s/^#   //p' "${BASH_SOURCE[0]}" >&2; exit 64; }
folder=$1
shift

unpacked=$folder/.packages
wanted=$(printf '%s\n' "$@" | sort)
if [ -f "$unpacked" ] && [ "$(cat "$unpacked")" = "$wanted" ]; then exit 0; fi

for tool in apt-get dpkg-deb flock; do
    command -v "$tool" >/dev/null || die "$tool is missing: this works on Debian and on what is made from it"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keyring" ] || die "Debian's keys are missing: apt-get install debian-archive-keyring, then run this again"

# Address of the first repository of Debian whose release has a name like this.
repository() {
    apt-get indextargets --format '$(ORIGIN)|$(CODENAME)|$(REPO_URI)' 'Created-By: Packages' |
        awk -F '|' -v name="$1" '$1 == "Debian" && $2 ~ name { print $3; exit }'
}
mirror=${DEBIAN_MIRROR:-$(repository '^[a-z]+$')}
security=${DEBIAN_SECURITY_MIRROR:-$(repository '^[a-z]+-security$')}
[ -n "$mirror" ] && [ -n "$security" ] ||
    die "apt knows no Debian repository here: run apt-get update, or name them in DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR"

apt=$PWD/.deps/debian
mkdir -p "$apt"/state/lists/partial "$apt"/cache/archives/partial
exec 9>"$apt/lock"
flock 9
touch "$apt/status"
# This machine's, and those that are asked for.
architectures=$({ dpkg --print-architecture; printf '%s\n' "$@" | sed -n 's/^[^:]*:\([a-z0-9]*\).*/\1/p'; } | sort -u)
from="[arch=$(paste -sd, <<<"$architectures") signed-by=$keyring]"
cat >"$apt/sources.list" <<LIST
deb $from $mirror bookworm main
deb $from $mirror bookworm-backports main
deb $from $security bookworm-security main
LIST
cat >"$apt/apt.conf" <<CONF
#clear APT::Architectures;
APT::Architectures { $(printf '"%s"; ' $architectures)};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
CONF
private() { apt-get --config-file "$apt/apt.conf" --quiet=2 "$@" >&2; }
needed_by() {
    apt-cache --config-file "$apt/apt.conf" depends --recurse --important "$1" | grep -v '^[ <]' |
        grep -vE '^(libc6|libcrypt1|libgcc-s1|libstdc\+\+6|gcc-.*-base)(:|$)'
}

say "fetching $*"
private update
packages=()
for package in "$@"; do
    case $package in
    *+) packages+=($(needed_by "${package%+}")) ;;
    *) packages+=("$package") ;;
    esac
done
new=$folder.new
rm -rf "$new"
mkdir -p "$new"
scratch=$(mktemp -d "$apt/fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
(cd "$scratch" && private download "${packages[@]}") ||
    die "Debian 12 has not all of: $*; it may have gone on to a newer version, so look at who asked for this one"
for package in "$scratch"/*.deb; do
    dpkg-deb --extract "$package" "$new"
done
printf '%s\n' "$wanted" >"$new/.packages"
rm -rf "$folder"
mv "$new" "$folder"
