#!/bin/sh
# A first look at scitq: runs first.yaml, meets the error in first.csv, mends it and goes on. Takes some seconds.
# `sh examples/first.sh` uses dist/scitq.pyz if it is there; SCITQ="..." names another way to start scitq.
set -u
here=$(cd "$(dirname "$0")" && pwd)
program=$here/../scitq.py
[ -e "$here/../dist/scitq.pyz" ] && program=$here/../dist/scitq.pyz
scitq=${SCITQ:-"python3 $program"}
work=$(mktemp -d "${TMPDIR:-/tmp}/scitq-first.XXXXXX") || exit 1
cp "$here/first.yaml" "$here/first.csv" "$work" && cd "$work" || exit 1

step() { printf '\n# %s\n' "$1"; }
show() { printf '$ %s\n' "$*"; }
run() { # run EXPECTED-EXIT-CODE COMMAND
    show "scitq run $2"
    $scitq run "$2"
    code=$?
    [ "$code" -eq "$1" ] || { printf 'scitq left with %s, %s was expected; see %s\n' "$code" "$1" "$work" >&2; exit 1; }
}

step "Fifty tasks, in $work. One row of first.csv has a typing error."
run 10 first.yaml

step "The message says what is wrong. We mend the table..."
show "sed -i 's/25OO/2500/' first.csv"
sed -i 's/25OO/2500/' first.csv

step "...and start the same again: what succeeded is kept, the changed task and what waited for it go on."
run 0 first.yaml

step "The result:"
show "cat report.txt"
cat report.txt
