#!/usr/bin/env bash
# Puts what gpu_run.sh brought home into runs/ and the files of record, then rewrites the tables and README.md.
#   scripts/gpu_merge.sh FOLDER [LIST]... [OVERRIDE]...         (default: scripts/gpu/figure2.txt)
# Only finished runs are taken, and none that is finished here; OVERRIDES as in gpu_run.sh, if there were any.
# Choices, in the environment: RUNS (runs), RESULTS (results), PYTHON (.venv/bin/python if there, else python3).
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x $python ] || python=python3
python=${PYTHON:-$python} runs=${RUNS:-runs} results=${RESULTS:-results}
from=${1:?names the folder that came home}
shift
lists=() overrides=()
for word in "$@"; do
  case $word in *.txt) lists+=("$word") ;; *) overrides+=("$word") ;; esac
done
[ ${#lists[@]} -gt 0 ] || lists=(scripts/gpu/figure2.txt)
compgen -G "$from/runs_*.tar.gz" > /dev/null || { echo "gpu_merge.sh: $from holds no runs_*.tar.gz" >&2; exit 2; }

mkdir -p "$runs"
staging=$(mktemp -d "$runs/.merging-XXXXXX")
trap 'rm -rf "$staging"' EXIT
for part in "$from"/runs_*.tar.gz; do
  tar --extract --gzip --no-same-owner --file "$part" --directory "$staging"
done
taken=0 unfinished=0
for run in "$staging"/*/; do
  home=$runs/$(basename "$run")
  if [ ! -e "$run/done.json" ]; then
    unfinished=$((unfinished + 1))
  elif [ ! -e "$home/done.json" ] && [ ! -e "$home/last.ckpt" ]; then
    rm -rf "$home"
    mv "$run" "$home"
    taken=$((taken + 1))
  fi
done
echo "$runs: $taken runs more; $unfinished that were not finished stay out"
if [ -e "$from/speed_cuda.csv" ]; then
  cp "$from/speed_cuda.csv" "$results/speed_cuda.csv"
fi
export PYTHONPATH=$PWD/src:${PYTHONPATH:-}
status=0
for list in "${lists[@]}"; do
  "$python" -m argmax_vae runs --collect "$list" "${overrides[@]}" --runs "$runs" --results "$results" || { status=1; continue; }
  table=$(basename "$list" .txt)
  case $table in
    figure2 | figure3 | figure3_2019 | figure6 | section61 | estimators) "$python" -m argmax_vae report "$table" --results "$results" ;;
  esac
done
[ "$results" != results ] || "$python" -m argmax_vae report readme
exit $status
