#!/usr/bin/env bash
# Make .venv: this checkout in editable mode, the development tools, and a CPU build of torch. Safe to run again: it
# returns at once while pyproject.toml and constraints/ are what they were.
#
#   PYTHON=/path/to/python3.12   the interpreter to use, for a new .venv; default: the first of python3, python3.13 ...
#                                python3.10 that fits
#   TORCH_INDEX=URL              where to fetch torch if pip does not find the pinned build by itself (x86-64)
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/.made-for
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

say() { printf '[venv] %s\n' "$*"; }
fail() {
    printf '[venv] error: %s\n' "$@" >&2
    exit 1
}

constraints_file() {
    case "$(uname -s)-$(uname -m)" in
        Linux-x86_64) echo constraints/x86-cpu.txt ;;
        Linux-aarch64) echo constraints/aarch64.txt ;;
        Darwin-arm64) echo constraints/macos.txt ;;
        *) fail "no pinned set for $(uname -s) on $(uname -m): a 64-bit x86 or ARM Linux, or macOS on Apple silicon, is needed" ;;
    esac
}

digest() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c 1-64; }

# What .venv was made for: the place (console scripts hold absolute paths) and the content of what decides it.
fingerprint() {
    pwd -P
    cat pyproject.toml constraints/*.txt scripts/venv.sh | digest
}

# Prints the interpreter to use, or explains what is missing.
find_python() {
    local candidate why="no python3 found"
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if ! "$candidate" -c '' >/dev/null 2>&1; then
            if [ -n "${PYTHON:-}" ]; then why="PYTHON=$PYTHON does not run"; fi
        elif ! "$candidate" -c 'import sys; sys.exit(not ((3, 10) <= sys.version_info and sys.maxsize > 2**32))'; then
            why="$candidate is $("$candidate" -c 'import platform as p; print(p.python_version(), p.architecture()[0])'); a 64-bit Python 3.10 or newer is needed"
        elif ! "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            why="$candidate has no venv module (Debian, Ubuntu: apt-get install python$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv)"
        else
            command -v "$candidate"
            return
        fi
    done
    fail "$why" "install Python 3.10 or newer (Debian 12, Ubuntu 22.04 and later: apt-get install python3 python3-venv)" \
        "or name one: PYTHON=/path/to/python3 scripts/venv.sh"
}

has_torch() {
    "$VENV/bin/python" - "$1" 2>/dev/null <<'PY'
import sys
from importlib.metadata import version
sys.exit(version("torch") != sys.argv[1])
PY
}

# pip, with a line per package instead of its whole talk; what it said is shown if it fails.
quiet_pip() {
    local log
    log=$(mktemp)
    if "$VENV/bin/pip" "$@" 2>"$log" |
        awk '/^(Collecting|Processing|Building|Installing)/ { print "[venv]   " substr($0, 1, 110); fflush() }'; then
        rm -f "$log"
        return
    fi
    grep -v '^WARNING' "$log" | tail -n 20 >&2
    rm -f "$log"
    return 1
}

# The pinned build alone, without what it needs: that comes from the ordinary index in the next step.
install_torch() {
    local pin=$1 log python_version
    has_torch "$pin" && return
    log=$(mktemp)
    say "installing torch $pin (about 200 MB)"
    # First whatever pip is configured for on this machine: a local wheel, a mirror, or the default index.
    if "$VENV/bin/pip" install --no-deps --retries 1 "torch==$pin" 2>"$log"; then
        rm -f "$log"
        return
    fi
    if [[ $pin == *+cpu ]]; then
        say "pip does not find it by itself; trying $TORCH_INDEX"
        if "$VENV/bin/pip" install --no-deps --retries 1 --timeout 20 --index-url "$TORCH_INDEX" "torch==$pin" 2>>"$log"; then
            rm -f "$log"
            return
        fi
    fi
    grep -v '^WARNING' "$log" | tail -n 20 >&2
    rm -f "$log"
    python_version=$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # Nothing is in it yet, and its Python may be why: let the next run choose again.
    if [ "$new_venv" = yes ]; then rm -rf "$VENV"; fi
    fail "torch $pin for Python $python_version could not be installed (what pip said is above)" \
        "without access to $TORCH_INDEX, put the wheel in a folder and run: PIP_FIND_LINKS=/that/folder scripts/venv.sh"
}

# One run at a time: two make targets may start together.
if command -v flock >/dev/null; then
    exec 9<pyproject.toml
    flock 9
fi

if [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$(fingerprint)" ]; then
    exit 0
fi

constraints=$(constraints_file)
started=$SECONDS
new_venv=no
if [ -n "${PYTHON:-}" ] || ! "$VENV/bin/python" -c '' >/dev/null 2>&1 || { [ -f "$STAMP" ] && [ "$(head -n 1 "$STAMP")" != "$(pwd -P)" ]; }; then
    python=$(find_python)
    say "making $VENV with $python"
    "$python" -m venv --clear "$VENV" || fail "$python could not make $VENV"
    new_venv=yes
fi
rm -f "$STAMP"
if [ -e /etc/nv_tegra_release ]; then
    say "this is a Jetson: $VENV gets a torch without CUDA; for NVIDIA's own see constraints/README.md"
fi

install_torch "$(sed -n 's/^torch==//p' "$constraints")"
say "installing edgectl and the development tools, pinned by $constraints"
quiet_pip install -c "$constraints" -e '.[dev]' || fail "the packages could not be installed (what pip said is above)"
"$VENV/bin/pip" check
fingerprint >"$STAMP"
say "ready: $("$VENV/bin/python" --version), torch $("$VENV/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))'), $((SECONDS - started)) s"
