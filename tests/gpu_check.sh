#!/bin/bash
# tests/gpu_check.sh [PYTHON]: on a machine with NVIDIA GPUs: a server and a worker of this checkout see them, share them among slots
# and, where docker gives GPUs to containers, pass `--gpus all`. Ends with 77 where there is no GPU. SCITQ_TEST_PROGRAM: the one file to try.
set -euo pipefail

cd "$(dirname "$0")/.."
python=${1:-python3}
if ! nvidia-smi -L; then
    echo "no GPU here: skipped"
    exit 77
fi
folder=$(mktemp -d)
export SCITQ_CONFIG=$folder/config SCITQ_SERVER=http://127.0.0.1:5917 HOME=$folder
program=("$python" "${SCITQ_TEST_PROGRAM:-scitq.py}")
scitq() { "${program[@]}" "$@"; }

"${program[@]}" server --port 5917 --data "$folder/data" >"$folder/server.log" 2>&1 &
server=$!
worker=
finish() {
    for process in $worker $server; do
        kill "$process" 2>/dev/null || true # it has ended already
    done
    wait
    rm -rf "$folder"
}
trap finish EXIT
until scitq manage worker list >/dev/null 2>&1; do
    kill -0 "$server" || { cat "$folder/server.log"; exit 1; }
    sleep 0.3
done
gpus=$(nvidia-smi -L | wc -l)
"${program[@]}" worker "$SCITQ_SERVER" $((2 * gpus)) --name gpu --scratch "$folder/scratch" >"$folder/worker.log" 2>&1 &
worker=$!

for _ in $(seq 100); do
    told=$(scitq manage worker list -L -o jsonl | "$python" -c 'import json, sys; row = json.loads(sys.stdin.readline() or "{}"); print(row.get("gpus") or 0, row.get("gpu"))')
    [ "${told%% *}" = "$gpus" ] && break
    sleep 0.3
done
echo "the worker tells: $told"
[ "${told%% *}" = "$gpus" ] || { echo "FAILED: $gpus GPUs are there"; cat "$folder/worker.log"; exit 1; }

echo "--- slots share devices, each task sees the ones it was given"
for _ in $(seq $((2 * gpus))); do
    # shellcheck disable=SC2016
    scitq launch --shell 'echo "devices=$CUDA_VISIBLE_DEVICES"; nvidia-smi -i "$CUDA_VISIBLE_DEVICES" --query-gpu=name --format=csv,noheader; sleep 2' >/dev/null
done
scitq manage task list -o ids | while read -r task; do
    until scitq manage task list -i "$task" -o jsonl | grep -qE '"state": ?"(succeeded|failed)"'; do sleep 0.3; done
    scitq manage task output "$task"
done | tee "$folder/told"
[ "$(grep -c '^devices=' "$folder/told")" -eq $((2 * gpus)) ] || { echo "FAILED: tasks did not run"; exit 1; }
[ "$(grep '^devices=' "$folder/told" | sort -u | wc -l)" -eq "$gpus" ] || { echo "FAILED: devices are not shared evenly"; exit 1; }

echo "--- --gpus all in containers"
if docker info 2>/dev/null | grep -qi nvidia; then
    scitq launch --wait -d ubuntu:24.04 -O '--gpus all' nvidia-smi -L
else
    echo "docker does not give GPUs to containers here: left out"
fi
echo "all is well"
