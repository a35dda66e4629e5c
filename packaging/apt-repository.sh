#!/usr/bin/env bash
# Makes or updates an apt repository in a folder that any web server, or a bucket, can hand out as it is.
#
#   packaging/apt-repository.sh --key KEY [--suite NAME] FOLDER DEB...
#
# KEY is a key of gpg on this machine (its e-mail address or fingerprint), NAME the suite ("stable"). Older versions
# in FOLDER stay; a package whose content changed under the same version is refused, since apt of those who have it
# would refuse it too. Upload pool/ first, then dists/, with dists/NAME/InRelease last.
set -euo pipefail
umask 022

say() { printf 'apt-repository: %s\n' "$*" >&2; }
die() { printf 'apt-repository: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '4s/^#   //p' "${BASH_SOURCE[0]}" >&2; exit 64; }

key='' suite=stable
while [ $# -gt 0 ]; do
    case $1 in
    --key) [ $# -ge 2 ] || usage; key=$2; shift ;;
    --suite) [ $# -ge 2 ] || usage; suite=$2; shift ;;
    -*) usage ;;
    *) break ;;
    esac
    shift
done
[ -n "$key" ] && [ $# -ge 2 ] || usage
[[ $suite =~ ^[a-z0-9][a-z0-9-]*$ ]] || die "$suite: a suite's name has small letters, digits and '-' only"
folder=$1
shift
for tool in apt-ftparchive:apt-utils gpg:gpg dpkg-deb:dpkg xz:xz-utils; do
    command -v "${tool%:*}" >/dev/null || die "${tool%:*} is missing: apt-get install ${tool#*:}"
done
gpg --list-secret-keys "$key" >/dev/null 2>&1 ||
    die "gpg has no secret key $key; to make one: gpg --quick-generate-key 'Packages <you@example.com>' ed25519 sign never"

mkdir -p "$folder/pool"
for deb in "$@"; do
    name=$(dpkg-deb --show --showformat '${Package}_${Version}_${Architecture}.deb' "$deb") || die "$deb is no package"
    # A colon (of an epoch) is no part of a file name.
    target=$folder/pool/${name/:/%3a}
    if [ -e "$target" ]; then
        cmp -s "$deb" "$target" ||
            die "$deb differs from the $name that the repository has: give it another version"
    else
        cp "$deb" "$target.new"
        chmod 644 "$target.new"
        mv "$target.new" "$target"
    fi
done

cd "$folder"
dist=dists/$suite
new=dists/.$suite.new
rm -rf "$new"
architectures=$(for deb in pool/*.deb; do dpkg-deb --field "$deb" Architecture; done | grep -vx all | sort -u | xargs)
for architecture in $architectures; do
    index=$new/main/binary-$architecture
    mkdir -p "$index"
    apt-ftparchive --arch "$architecture" packages pool >"$index/Packages"
    xz --keep --force "$index/Packages"
done
# Outside of the folder while it is made, or it would list itself.
release=$(apt-ftparchive -o "APT::FTPArchive::Release::Origin=Edgewarden" -o "APT::FTPArchive::Release::Label=Edgewarden" \
    -o "APT::FTPArchive::Release::Suite=$suite" -o "APT::FTPArchive::Release::Codename=$suite" \
    -o "APT::FTPArchive::Release::Architectures=$architectures" -o "APT::FTPArchive::Release::Components=main" \
    release "$new")
printf '%s\n' "$release" >"$new/Release"
gpg --batch --yes --quiet --local-user "$key" --clearsign --output "$new/InRelease" "$new/Release"
gpg --batch --yes --quiet --local-user "$key" --armor --detach-sign --output "$new/Release.gpg" "$new/Release"
gpg --batch --yes --quiet --armor --export "$key" >edgewarden.asc
rm -rf "$dist"
mv "$new" "$dist"
say "$folder: $(find pool -name '*.deb' | wc -l) packages for $architectures in $suite"
