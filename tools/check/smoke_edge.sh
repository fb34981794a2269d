#!/usr/bin/env bash
# The bare `edge` extra in an empty environment: import everything, then one simulated minute of the control loop.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
venv=$(mktemp -d)
rm -rf "$root/build"  # what an earlier build left would be packed again
trap 'rm -rf "$venv" "$root/build"' EXIT
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check '.[edge]' 2>&1 | grep -v '^WARNING' || true
cp tools/check/simulated_minute.py "$venv/"
cp -r models/surface "$venv/surface"
cd "$venv"
bin/gudgeon --help >/dev/null
bin/gudgeon doctor >/dev/null
bin/python simulated_minute.py surface
