#!/usr/bin/env bash
# Resolve constraints/common.txt anew: the newest versions, for every Python and platform at once. Needs `uv` on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "constraints.sh: needs uv (pip install uv)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# torch is pinned per platform; what it needs is named in its place, so that it is pinned too.
sed 's/"torch>=[^"]*"/"filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions"/' \
    pyproject.toml >"$work/pyproject.toml"

# Held back from Python 3.12 on, so that one version of each runs everywhere but on 3.10.
cat >"$work/hold.txt" <<'HOLD'
networkx==3.6.1 ; python_full_version >= "3.11"
numpy==2.4.6 ; python_full_version >= "3.11"
scipy==1.17.1 ; python_full_version >= "3.11"
HOLD

(cd "$work" && uv pip compile --quiet pyproject.toml --all-extras --universal --python-version 3.10 -c hold.txt \
    --no-header --no-annotate --no-emit-package edgectl -o common.txt)
{
    sed '/^[^#]/,$d' constraints/common.txt
    cat "$work/common.txt"
} >"$work/new.txt"
mv "$work/new.txt" constraints/common.txt
git --no-pager diff --stat -- constraints/common.txt
