#!/usr/bin/env bash
# Makes a bare machine a worker: environment, caches on the root's disk, limits, a look at all of it, the worker itself. When the
# worker has had nothing to do for a while, the machine stops itself.
#
#   PREFECT_API_URL   the server, as this machine reaches it; needed
#   UPS_WORKER        name of the worker (the machine's)
#   UPS_ROOT          artifacts, runs and caches (ups-root beside the checkout): a large disk, or the one that workers share
#   UPS_IDLE_MINUTES  without a flow run, after which the machine stops (0: never)
#   UPS_STOP          command that stops the machine, whenever this script ends (none: only the script ends)
#
# NCCL finds out by itself what a machine has; docs/how-to/several-machines.md, "Network variables", says what to set where it is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PREFECT_API_URL:?the address of the Prefect server, as this machine reaches it}"
name=${UPS_WORKER:-$(uname -n)} idle_minutes=${UPS_IDLE_MINUTES:-0}
export UPS_ROOT=${UPS_ROOT:-$(dirname "$PWD")/ups-root}
mkdir -p "$UPS_ROOT"

# A container's own file system is small, and gone with it; a compiled kernel is worth keeping.
export XDG_CACHE_HOME=$UPS_ROOT/.cache PIP_CACHE_DIR=$UPS_ROOT/.cache/pip
export TRITON_CACHE_DIR=$UPS_ROOT/.cache/triton CUDA_CACHE_PATH=$UPS_ROOT/.cache/cuda
ulimit -n "$(ulimit -Hn)"                       # a zarr store and its readers hold many files
ulimit -l unlimited 2>/dev/null || echo "locked memory stays at $(ulimit -l) kB; only InfiniBand needs more"

stop() {
    trap - EXIT
    if [ -n "${worker:-}" ]; then
        kill -TERM "$worker" 2>/dev/null || true
        wait "$worker" || true
    fi
    if [ -n "${UPS_STOP:-}" ]; then
        echo "stopping this machine"
        until sh -c "$UPS_STOP"; do sleep 30; done # as long as it runs it costs money
    fi
}
trap stop EXIT # also where the environment cannot be made: such a machine is of no use

make setup
# shellcheck disable=SC1091
. .venv/bin/activate
ups doctor --root "$UPS_ROOT"

idle_seconds=$(awk "BEGIN { print int(60 * $idle_minutes) }")
busy_at=$SECONDS worker=
while [ "$idle_seconds" = 0 ] || [ $((SECONDS - busy_at)) -lt "$idle_seconds" ]; do
    if [ -z "$worker" ]; then
        python -m deployments.worker --name "$name" & # Prefect's own would kill its runs when the machine is reclaimed
        worker=$!
    fi
    sleep 2
    if ! kill -0 "$worker" 2>/dev/null; then
        wait "$worker" || echo "the worker ended with exit code $?; again in 10 s"
        worker=
        sleep 10
    elif parts=$(pgrep -d, -P "$worker") && pgrep -P "$parts" >/dev/null; then # Prefect's worker is its child, flow runs that one's
        busy_at=$SECONDS
    fi
done
echo "nothing to do for $idle_minutes minutes"
