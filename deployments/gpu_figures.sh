#!/usr/bin/env bash
# Figures that are still to be measured on one GPU, and the Burgers rows of the README again. Nothing else should be running there.
# Meant for 25 minutes; NOT run yet.
# In the root of the checkout, with its environment:
#   bash deployments/gpu_figures.sh DIRECTORY [PART ...]
# parts: tests train profile golden prod viscosities; without any, all of them in this order. Logs, tables and runs go below DIRECTORY.
set -euo pipefail
out=$1
shift
parts=("${@:-tests train profile golden prod viscosities}")
mkdir -p "$out"
export UPS_ROOT=$out/root
failed=()

# A part that fails does not take the others along.
measure() {
    local name=$1
    shift
    echo "== $name: $*"
    "$@" >"$out/$name.log" 2>&1 || failed+=("$name")
    tail -n 25 "$out/$name.log"
}

for part in ${parts[*]}; do
    case $part in
    tests)
        CUBLAS_WORKSPACE_CONFIG=:4096:8 measure tests python -m pytest tests/gpu -q
        ;;
    train)
        measure train-golden python -m ups bench train configs/burgers_golden.yaml --steps 80
        measure train-2task python -m ups bench train configs/pdebench_2task_baseline_ddp_4gpu_original.yaml --steps 40 \
            --set execution.processes=1 --set training.operator.batch_size=8 --set training.operator.accumulation=1 \
            --set training.operator.joint=null --set data.problems.advection.trajectories.train=256 \
            --set data.problems.darcy.trajectories.train=256
        ;;
    profile)
        measure profile python -m ups profile operator configs/burgers_golden.yaml
        ;;
    golden)
        measure golden python -m ups run configs/burgers_golden.yaml
        ;;
    prod)
        measure prod python -m ups run configs/burgers_prod.yaml --set data.trajectories.test=128 \
            --set training.operator.steps=12000 --set training.diffusion.steps=2000 --set training.consistency.steps=500 \
            --set execution.compile=true --set execution.precision=tf32
        ;;
    viscosities)
        measure viscosities python -m ups stage operator configs/burgers_viscosities.yaml
        ;;
    *)
        echo "no part is called $part" >&2
        exit 2
        ;;
    esac
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
