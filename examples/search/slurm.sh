#!/bin/bash
# A search as a Slurm array: sixteen jobs, each with one worker, that meet in one storage.
#
#     sbatch --export=ALL,STUDIES=grpc://node-1:13000 examples/search/slurm.sh
#
# A job that is killed, preempted or out of time costs its running trial, which another job retries. Submit the same line
# again to go on, or with another --array for more workers.
#SBATCH --job-name=search
#SBATCH --array=0-15
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -euo pipefail

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-4}"
out="${TMPDIR:-/tmp}/search-${SLURM_ARRAY_JOB_ID:-0}-${SLURM_ARRAY_TASK_ID:-0}" # of this job alone; or a shared folder

# The signal comes to this shell, a minute before the end: the worker marks its trial as interrupted and leaves.
tsdistill search recipe.toml --storage env:STUDIES --name load --trials 500 --max-bytes 60000 --out "$out" --quiet &
worker=$!
trap 'kill -TERM "$worker"' TERM
wait "$worker" || wait "$worker" # the first one ends with the signal, the second one with the worker
