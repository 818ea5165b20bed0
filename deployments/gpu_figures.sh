#!/usr/bin/env bash
# Figures that are still to be measured on one GPU, and the Burgers rows of the README again. Nothing else should be running there.
# Meant for 25 minutes; NOT run yet as a whole.
# A bare machine needs this checkout, Python with the packages of constraints.txt (torch with CUDA), a C++ compiler for torch.compile,
# and room below DIRECTORY (`ups plan` says how much a configuration needs); no network: all data are generated here. In the root of the checkout, with its environment:
#   bash deployments/gpu_figures.sh DIRECTORY [PART ...]
# parts: tests train profile golden prod viscosities known; without any, all of them in this order. Logs, tables and runs go below DIRECTORY.
# A machine that is lent for ten minutes at a time takes them one by one: tests, profile, golden and viscosities are each meant for
# fewer; train compiles ten times, and prod is the longest. What was cut off goes on from its artifacts when the same part is run again
# with the same DIRECTORY.
set -euo pipefail
out=$1
shift
parts=("${@:-tests train profile golden prod viscosities known}")
mkdir -p "$out"
export UPS_ROOT=$out/root
failed=()
# The 21 million weights of the 2-task model on one GPU, with the data that its steps need to be timed.
two_task=(configs/pdebench_2task_baseline_ddp_4gpu_original.yaml --set execution.processes=1
    --set training.operator.accumulation=1 --set training.operator.joint=null
    --set data.problems.advection.trajectories.train=256 --set data.problems.darcy.trajectories.train=256)

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
        measure train-2task python -m ups bench train "${two_task[@]}" --set training.operator.batch_size=8 --steps 40
        ;;
    profile)
        measure profile-golden python -m ups profile operator configs/burgers_golden.yaml
        # Batches for which a GPU has more to compute than to launch: 96 is that of four GPUs together, 192 the optimised one's.
        for batch in 96 192; do
            measure "profile-2task-$batch" python -m ups profile operator "${two_task[@]}" --steps 40 \
                --set training.operator.batch_size=$batch --set execution.compile=true
        done
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
    known)
        for name in sota_push_v1 sota_push_v2_deeper train_burgers_upt_optimized; do
            measure "known-$name" python -m ups run "configs/known/$name.yaml"
        done
        ;;
    *)
        echo "no part is called $part" >&2
        exit 2
        ;;
    esac
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
