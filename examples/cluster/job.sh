#!/bin/bash
#SBATCH --job-name=mine
#SBATCH --output=/home/me/runs/mine/logs/%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --array=0-19
#SBATCH --partition=day
#SBATCH --time=3:00:00
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=12G
#SBATCH --mail-user=me@example.org
#SBATCH --mail-type=END,FAIL
#SBATCH --account=x

export OMP_NUM_THREADS=1
DATA="$(apptainer exec --nv optiscope.sif optiscope data stage /home/me/runs/mine --data-dir /shared/data --to "/scratch/$SLURM_JOB_ID")" || DATA=/shared/data
[ -z "$DATA" ] || export OPTISCOPE_DATA_DIR="$DATA"
exec apptainer exec --nv optiscope.sif optiscope work /home/me/runs/mine
