#!/usr/bin/env bash
# Runs all fuzzers for so many seconds in all: run.sh SECONDS. Fails if one of them finds something.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
export PYTHON=${PYTHON:-python3}
status=0
if [ -f tests/fuzz/kernel.sh ]; then
    share=$(( seconds / 2 > 0 ? seconds / 2 : 1 ))
    bash tests/fuzz/kernel.sh "$share" || status=1
else
    share=$seconds
fi
"$PYTHON" -m tests.fuzz.parsers "$share" || status=1
exit $status
