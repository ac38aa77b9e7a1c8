#!/usr/bin/env bash
# Install edgectl on this board: find out which board it is, take the torch and onnxruntime that its lock names, and set
# up the services. Says what it does. Safe to run again.
#
#   scripts/install.sh                       from a checkout, with the package index
#   ./install.sh                             from a bundle of `edgectl bundle make`: no network
#
#   --dry-run          say what would be done, and do nothing
#   --profile NAME     instead of the one that fits this board (firmware_profiles/NAME.toml)
#   --train|--no-train with or without torch; default: as the profile's train.allow says ("all": with)
#   --python PATH      the interpreter; default: the newest that the board's locks are for
#   --prefix DIR       where to; default: /opt/edgectl
#   --no-units         no user, no systemd units, no link in /usr/local/bin
#   --root DIR         the file system to look at and to install into; default: /
set -euo pipefail
umask 022 # the service runs as another user than whoever installs
export TMPDIR=${TMPDIR:-/var/tmp} # wheels are large, and /tmp is memory on newer systems

say() { printf '[install] %s\n' "$*"; }
fail() {
    printf '[install] error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '[install]   -> %s\n' "$@" >&2
    exit "$status"
}
# What changes something goes through here.
run() {
    say "+ $*"
    [ "$dry" = yes ] || "$@"
}

here=$(cd "$(dirname "$0")" && pwd)
dry=no root='' prefix=/opt/edgectl units=yes train='' profile='' python='' status=2
while [ $# -gt 0 ]; do
    case "$1" in
        --dry-run) dry=yes ;;
        --no-units) units=no ;;
        --train) train=yes ;;
        --no-train) train=no ;;
        --profile | --python | --prefix | --root)
            [ $# -gt 1 ] || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"
            exit 0
            ;;
        *) fail "unknown option $1" "$0 --help" ;;
    esac
    shift
done
root=${root%/}
case "$prefix" in
    /*) ;;
    *) fail "--prefix needs an absolute path, not '$prefix'" ;;
esac

# --- what there is to install: a bundle, or a checkout -------------------------------------------------------------
bundle=''
if [ -f "$here/SHA256SUMS" ]; then
    bundle=$here
    profiles=$here/profiles locks=$here/locks services=$here/systemd
    status=8
    # A name with a slash before it, or with .., would be checked, or written, somewhere else.
    if grep -qvE '^[0-9a-f]{64}  [A-Za-z0-9_+-][A-Za-z0-9._+!-]*(/[A-Za-z0-9_+-][A-Za-z0-9._+!-]*)*$' "$here/SHA256SUMS"; then
        fail "SHA256SUMS of this bundle is damaged" "copy the bundle again"
    fi
    if ! (cd "$here" && sha256sum --check --quiet --strict SHA256SUMS >&2); then
        fail "this bundle is damaged: the files named above are not what they were" "copy the bundle again"
    fi
    unknown=$(cd "$here" && find . -type f ! -name SHA256SUMS | sed 's|^\./||' | sort |
        comm -23 - <(sed 's/^[0-9a-f]*  //' SHA256SUMS | sort))
    [ -z "$unknown" ] || fail "not of this bundle: $unknown" "remove it, or copy the bundle again"
    say "bundle $here: every file is what it was when it was made"
else
    profiles=$here/../firmware_profiles locks=$here/../firmware_profiles/locks services=$here/../systemd
    [ -f "$profiles/generic.toml" ] || fail "run this from a checkout, or from a bundle of edgectl bundle make"
fi

# --- which board -----------------------------------------------------------------------------------------------------
# The same rule as edgectl profile detect; a test compares the two for every board.
device_tree() {
    { head -c 4096 "$root/proc/device-tree/$1" 2>/dev/null || true; } | tr '\0' '\n'
}
values_of() { # KEY FILE: the quoted values of a key, a line each; provenance, the last table, names the same keys
    sed -n '/^\[provenance\]$/q; s/^'"$1"' = //p' "$2" | { grep -oE '"[^"]*"' || true; } | tr -d '"'
}
detect() {
    local file candidate prefix part best='' length=0 model compatible
    model=$(device_tree model | head -n 1)
    compatible=$(device_tree compatible | tr ',+' '\n' | cut -c 1-10)
    for file in "$profiles"/*.toml; do
        candidate=$(basename "$file" .toml)
        while IFS= read -r prefix; do
            if [ -n "$prefix" ] && [ "${model#"$prefix"}" != "$model" ] && [ ${#prefix} -gt "$length" ]; then
                best=$candidate length=${#prefix}
            fi
        done < <(values_of device_tree_model_prefix "$file")
    done
    if [ -z "$best" ]; then
        for file in "$profiles"/*.toml; do
            while IFS= read -r part; do
                if grep -qxF -- "$part" <<<"$compatible"; then best=$(basename "$file" .toml); fi
            done < <(values_of part_number "$file")
        done
    fi
    echo "${best:-generic}"
}
status=7
# INSTALL_ARCH, with --root: the file system is that of another machine.
arch=${INSTALL_ARCH:-$(uname -m)}
model=$(device_tree model | head -n 1)
found=$(detect 2>/dev/null)
if [ -z "$profile" ]; then
    profile=$found
    say "this is: ${model:-a machine without a device tree}; profile: $profile"
else
    say "this is: ${model:-a machine without a device tree}; profile: $profile (asked for; $found would fit)"
fi
[[ $profile =~ ^[a-z0-9][a-z0-9-]*$ ]] || fail "'$profile' is not the name of a profile"
[ -f "$profiles/$profile.toml" ] || fail "there is no profile '$profile' here" "there are: $(cd "$profiles" && echo *.toml)"
[ "$arch" = aarch64 ] || fail "the locks are for 64-bit ARM Linux, this machine is $arch" \
    "on a Raspberry Pi: install a 64-bit system; on x86-64: pip install -c constraints/x86-cpu.txt ."

# --- which Python ----------------------------------------------------------------------------------------------------
lock=''
wanted=$(values_of python "$profiles/$profile.toml" | sort -t. -k2,2nr | tr '\n' ' ')
for version in $wanted; do
    candidate=${python:-python$version}
    seen=$("$candidate" -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
    if [ "$seen" = "$version" ] && [ -f "$locks/$profile-py${version/./}.txt" ]; then
        python=$candidate lock=$locks/$profile-py${version/./}.txt
        break
    fi
done
if [ -z "$lock" ]; then
    container=$(values_of container "$profiles/$profile.toml")
    [ -z "$container" ] || fail "'$profile' needs Python $wanted, which its own system does not have" \
        "run it in a container: docker build -f Dockerfile.jetson --build-arg BASE_IMAGE=$container --build-arg PROFILE=$profile ."
    has=$("${python:-python3}" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
    if [ -n "$bundle" ] && [ ! -f "$locks/$profile-py${has/./}.txt" ]; then
        fail "this bundle is for $(cd "$locks" && echo *.txt), this board is '$profile'${has:+ with Python $has}" \
            "make another: edgectl bundle make --profile $profile${has:+ --python $has}"
    fi
    fail "found no Python with venv among: $wanted(locks of '$profile'${bundle:+ in this bundle})" \
        "Debian, Ubuntu: sudo apt-get install python3-venv; or name one with --python"
fi

# --- with or without training ----------------------------------------------------------------------------------------
allow=$(values_of allow "$profiles/$profile.toml")
if [ -z "$train" ]; then
    train=no
    [ "$allow" != all ] || train=yes
    [ -z "$bundle" ] || train=$(cat "$bundle/training")
fi
status=2
if [ "$train" = yes ] && [ -n "$bundle" ] && [ "$(cat "$bundle/training")" = no ]; then
    fail "this bundle was made without training" "make another: edgectl bundle make --train"
fi
version_of() { sed -n "s/^$1==\([^ ]*\) .*/\1/p" "$lock"; }
say "lock: $(basename "$lock"); onnxruntime $(version_of onnxruntime)"
system_torch=''
if [ "$train" = no ]; then
    say "without torch: this board syncs and infers (its profile says train.allow = '$allow'; --train adds torch)"
elif [ -n "$(version_of torch)" ]; then
    say "torch $(version_of torch): runs on this board's cores, CPU only"
else
    system_torch=$("$python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null || true)
    if [ -n "$system_torch" ]; then
        say "torch $system_torch: NVIDIA's, already on this system; it and its numpy stay as they are"
    else
        say "torch: not on this system yet. Install NVIDIA's build for your JetPack into $python, then run this again; see docs/boards.md"
    fi
fi

# --- install ---------------------------------------------------------------------------------------------------------
status=1
target=$root$prefix state=/var/lib/edgectl
as_service=(env)
if [ "$dry" = no ] && [ "$(id -u)" -ne 0 ] && [ -z "$root" ] && [ "$units" = yes ]; then
    fail "must run as root to install into $prefix and to set up services" "sudo $0, or: $0 --no-units --prefix \$HOME/.local/share/edgectl"
fi
work=$(mktemp -d)
# However it ends: what is half made goes, and what was there before is there again.
tidy() {
    rm -rf "$work"
    [ "$dry" = no ] || return 0
    rm -rf "$target.new"
    if [ ! -e "$target" ] && [ -e "$target.old" ]; then mv "$target.old" "$target"; fi
}
trap tidy EXIT
if [ "$train" = yes ]; then cp "$lock" "$work/lock.txt"; else sed '/^# training$/,$d' "$lock" >"$work/lock.txt"; fi
site=()
if [ -n "$system_torch" ]; then
    site=(--system-site-packages)
    if "$python" -c 'import numpy' 2>/dev/null; then sed -i '/^numpy==/d' "$work/lock.txt"; fi
fi
source_of_wheels=(--require-hashes)
[ -z "$bundle" ] || source_of_wheels+=(--no-index --find-links "$bundle/wheels")

run mkdir -p "$(dirname "$target")"
run "$python" -m venv --clear "${site[@]}" "$target.new"
run "$target.new/bin/python" -m pip install --quiet --no-deps --only-binary :all: "${source_of_wheels[@]}" -r "$work/lock.txt"
if [ -n "$bundle" ]; then
    run "$target.new/bin/python" -m pip install --quiet --no-deps --no-index "$bundle"/wheels/edgectl-*.whl
else
    # Built outside the checkout: what an earlier build left there of files that are gone by now would be installed, too.
    printf '[build]\nbuild_base=%s\n[egg_info]\negg_base=%s\n' "$work" "$work" >"$work/build.cfg"
    run env DIST_EXTRA_CONFIG="$work/build.cfg" "$target.new/bin/python" -m pip install --quiet --no-deps "$here/.."
fi
# Console scripts hold the path they were made for, so the one that counts is written anew. -I: nothing of the folder where
# somebody stands may be imported.
if [ "$dry" = no ]; then
    printf '#!/bin/sh\nexec %s/bin/python -I -m edgectl "$@"\n' "$prefix" >"$target.new/bin/edgectl"
    chmod 755 "$target.new/bin/edgectl"
    rm -f "$target.new/bin/cloud-aug"
fi
run sync -f "$target.new" # a power cut after the rename may otherwise leave empty files, and the old ones gone
run rm -rf "$target.old"
[ ! -e "$target" ] || run mv "$target" "$target.old"
run mv "$target.new" "$target"
run rm -rf "$target.old"

if [ "$units" = yes ]; then
    if [ -z "$root" ] && ! id edgectl >/dev/null 2>&1; then
        run useradd --system --user-group --home-dir "$state" --shell /usr/sbin/nologin edgectl
    fi
    if [ -z "$root" ]; then
        as_service=(runuser -u edgectl -- env HOME="$state")
        run mkdir -p -m 700 "$state"
        run chown -R edgectl:edgectl "$state/" # also what commands of root left there
    fi
    run mkdir -p "$root/etc/systemd/system" "$root/usr/local/bin"
    for unit in "$services"/*; do
        run cp "$unit" "$root/etc/systemd/system/"
    done
    # The group video may use the GPU and ask the Pi's firmware. A group that is missing would keep a unit from starting.
    if grep -q '^video:' "$root/etc/group" 2>/dev/null; then
        [ -n "$root" ] || as_service=(runuser -u edgectl -g edgectl -G video -- env HOME="$state")
        printf '[Service]\nSupplementaryGroups=video\n' >"$work/groups.conf"
        for unit in edgectl-agent edgectl-health edgectl-sync; do # a sync may train, where its owner wants rounds
            run mkdir -p "$root/etc/systemd/system/$unit.service.d"
            run cp "$work/groups.conf" "$root/etc/systemd/system/$unit.service.d/"
        done
    fi
    if [ "$prefix" != /opt/edgectl ]; then
        run sed -i "s|/opt/edgectl|$prefix|g" "$root"/etc/systemd/system/edgectl-*.service
    fi
    run ln -sfn "$prefix/bin/edgectl" "$root/usr/local/bin/edgectl"
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        run systemctl daemon-reload
        run systemctl enable --now edgectl-sync.timer edgectl-health.timer
        run systemctl try-restart edgectl-agent.service || say "the agent does not start again: systemctl status edgectl-agent"
        [ -e "$state/enrolment.json" ] || say "the agent is not started: enroll first (sudo -u edgectl edgectl enroll - < FILE)," \
            "then: systemctl enable --now edgectl-agent"
    fi
fi
run sync -f "$(dirname "$target")"

# --- try it ----------------------------------------------------------------------------------------------------------
if [ -z "$root" ]; then
    run "${as_service[@]}" EDGECTL_PROFILE="$profile" "$prefix/bin/edgectl" doctor --offline || say "something does not work yet: see above; edgectl doctor tries again"
fi
[ "$profile" = "$found" ] || say "edgectl itself would take '$found' for this board: put profile = \"$profile\" into /etc/edgectl/edgectl.toml"
say "done${root:+ in $root}: $prefix/bin/edgectl"
