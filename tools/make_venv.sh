#!/bin/sh
# make_venv.sh [INTERPRETER]: create .venv with the first suitable Python and install the course into it.
set -u
cd "$(dirname "$0")/.." || exit 1

fail() { echo "error: $*" >&2; exit 1; }

# A name on the PATH may be a launcher for an interpreter that is not there, so each candidate is asked.
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
has_venv() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

python= without_venv=
for candidate in ${1:-python3 python3.13 python3.12 python3.11}; do
    case "$(version_of "$candidate")" in
        3.11|3.12|3.13) ;;
        *) continue ;;
    esac
    if has_venv "$candidate"; then python=$candidate; break; fi
    without_venv=${without_venv:-$candidate}
done

if [ -z "$python" ] && [ -n "$without_venv" ]; then
    package=python$(version_of "$without_venv")-venv
    fail "$without_venv cannot create virtual environments: install its venv module" \
         "(Debian, Ubuntu: apt-get install $package) and run make again"
elif [ -z "$python" ] && [ -n "${1:-}" ]; then
    fail "PYTHON=$1 is not a Python 3.11, 3.12 or 3.13: name one that is"
elif [ -z "$python" ]; then
    fail "no Python 3.11, 3.12 or 3.13 on the PATH: install one (https://www.python.org/downloads)," \
         "or name it with make PYTHON=/path/to/python3"
fi

# An environment whose interpreter has gone, or is not the one asked for, is made afresh.
if [ "$(version_of .venv/bin/python)" != "$(version_of "$python")" ]; then
    rm -rf .venv
    "$python" -m venv .venv || fail "$python could not create .venv (see above)"
fi

echo "Installing the course's packages into .venv with $("$python" --version): minutes the first time, seconds later"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' ||
    fail "the packages could not be installed (see above): check the network, then run make again"
touch .venv/.ready
