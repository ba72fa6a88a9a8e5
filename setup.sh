#!/usr/bin/env bash
# bash setup.sh         install aims-PAX into .venv
# bash setup.sh demo    install, then run the quickstart in ./demo
# bash setup.sh test    install, then run the tests
#
# PYTHON               the interpreter to build on (default: python3; needs 3.11 or newer)
# AIMS_PAX_TORCH       replaces "torch==…" in the first step, e.g. a wheel file for your GPU
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

mode=${1:-install}
case "$mode" in
    install | demo) extras="xtb,fast,so3lr" ;;
    test) extras="xtb,fast,so3lr,dev" ;;
    *) echo "usage: bash setup.sh [demo|test]" >&2; exit 2 ;;
esac

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "aims-PAX needs Python 3.11 or newer; $("$python" --version) was found. Set PYTHON=/path/to/python3.11" >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip --disable-pip-version-check)

stamp="$(cat pyproject.toml constraints.txt setup.sh | cksum) $extras ${AIMS_PAX_TORCH:-}"
if [ "$(cat .venv/aims-pax-installed 2>/dev/null || true)" != "$stamp" ]; then
    # torch first and by its exact version: an open range may bring another build of several gigabytes
    torch=${AIMS_PAX_TORCH:-$(grep '^torch==' constraints.txt)}
    echo "installing torch ($torch) …"
    # shellcheck disable=SC2086  # may hold several words
    "${pip[@]}" install --quiet $torch
    echo "installing aims-PAX …"
    if [ -n "${AIMS_PAX_TORCH:-}" ]; then
        grep -v '^torch==' constraints.txt > .venv/constraints.txt
    else
        cp constraints.txt .venv/constraints.txt
    fi
    "${pip[@]}" install --quiet -c .venv/constraints.txt -e ".[$extras]"
    echo "$stamp" > .venv/aims-pax-installed
fi

# One thread a process: more made MACE several times slower on shared machines.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
case "$mode" in
    install)
        echo "aims-PAX is installed. Activate it with:  source .venv/bin/activate"
        ;;
    demo)
        mkdir -p demo
        cp -n example/quickstart/* demo/ 2>/dev/null || true
        cd demo
        ../.venv/bin/aims-PAX
        ../.venv/bin/python evaluate.py
        echo "results are in $(pwd)/results"
        ;;
    test)
        # three files of tests side by side, each with one thread: many wait, so two cores are enough
        # the foundation model was installed above: its tests must run, not be skipped
        FOUNDATION_TESTS=required .venv/bin/python -m pytest -n 3 --dist loadfile --durations=15
        ;;
esac
