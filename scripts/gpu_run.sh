#!/usr/bin/env bash
# Trains lists of cells on a machine with a GPU and no network, within a time: checks first, then the benchmark, then cells.
#   OUT=DIR scripts/gpu_run.sh [LIST]... [OVERRIDE]...          (default: scripts/gpu/figure2.txt)
# It uses what gpu_pack.sh gathered. All that is worth taking home goes to $OUT, every 15 seconds: checks.txt, speed_cuda.csv,
# log.txt and runs_0.tar.gz to runs_3.tar.gz, the runs without checkpoints, each file of at most 16 MiB. Called again on the
# same machine it goes on where it was; gpu_merge.sh puts what came home into the files of record.
# Choices, in the environment: BUDGET seconds in all (570), CHECKS (60) and BENCH (60) seconds at most, 0 for none,
# PROCESSES at once (1: several share the card's time slices), PYTHON (python3), CARRY (.carry), RUNS (runs).
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:?names the directory for what is taken home} budget=${BUDGET:-570} processes=${PROCESSES:-1}
python=${PYTHON:-python3} carry=${CARRY:-.carry} runs=${RUNS:-runs}
card=$runs/.card part_kib=$((15 * 1024)) parts=4 pack_every=15
left() { echo $((budget - SECONDS)); }

lists=() overrides=()
for word in "$@"; do
  case $word in *.txt) lists+=("$word") ;; *) overrides+=("$word") ;; esac
done
[ ${#lists[@]} -gt 0 ] || lists=(scripts/gpu/figure2.txt)
mkdir -p "$out" "$card/logs"
case $card in /*) site=$card/site ;; *) site=$PWD/$card/site ;; esac

if compgen -G "$carry/wheels/*.whl" > /dev/null && [ ! -e "$site/.whole" ]; then
  for wheel in "$carry"/wheels/*.whl; do
    "$python" -m zipfile --extract "$wheel" "$site" || exit 2
  done
  touch "$site/.whole"
fi
export PYTHONPATH=$site:$PWD/src:${PYTHONPATH:-} PYTHONUNBUFFERED=1
"$python" - << 'END' || exit 2
import importlib.util, sys
needed = "torch torchvision pytorch_lightning hydra omegaconf antlr4 pandas scipy sklearn matplotlib jaxtyping filelock PIL"
lacking = [name for name in needed.split() if importlib.util.find_spec(name) is None]
if lacking:
    sys.exit(f"gpu_run.sh: this machine lacks {', '.join(lacking)}: run gpu_pack.sh where there is a network, and take .carry along")
END
if [ -z "${ARGMAX_VAE_COMMIT:-}" ] && [ -e "$carry/commit" ]; then
  ARGMAX_VAE_COMMIT=$(cat "$carry/commit")
  export ARGMAX_VAE_COMMIT
fi
gunzip --keep --force "$carry"/data/CelebA/*.gz 2> /dev/null
[ ! -d "$carry/data" ] || overrides=("paths.data=$carry/data" "${overrides[@]}")
overrides+=("paths.runs=$runs" tracker=none)

# A file of $OUT is replaced at once, so that what is there is whole whenever the machine is taken away.
deliver() { cp "$1" "$out/.new" && mv "$out/.new" "$out/$2"; }
write_part() {
  [ $# -gt 1 ] || return 0
  local number=$1
  shift
  tar --create --gzip --file "$card/part.tar.gz" --directory "$runs" --exclude='*.ckpt' "$@" 2> /dev/null
  deliver "$card/part.tar.gz" "runs_$number.tar.gz"
}
pack() {
  local number=0 kib=0 size name names=()
  for name in $(cd "$runs" && ls -d -- */ 2> /dev/null); do
    size=$(du -sk --apparent-size --exclude='*.ckpt' "$runs/$name" | cut -f1)
    if [ $((kib + size)) -gt $part_kib ] && [ ${#names[@]} -gt 0 ]; then
      write_part $number "${names[@]}"
      number=$((number + 1)) kib=0 names=()
    fi
    if [ "$size" -gt $part_kib ] || [ $number -ge $parts ]; then
      echo "gpu_run.sh: no room in \$OUT for $runs/$name, $size KiB" >> "$card/logs/0"
    else
      names+=("$name") kib=$((kib + size))
    fi
  done
  write_part $number "${names[@]}"
  tail --quiet --lines=200 "$card"/logs/* > "$card/log.txt" && deliver "$card/log.txt" log.txt
  [ ! -e "$card/speed_cuda.csv" ] || deliver "$card/speed_cuda.csv" speed_cuda.csv
  [ ! -e "$card/checks.txt" ] || deliver "$card/checks.txt" checks.txt
}
(while sleep $pack_every; do pack; done) &
packer=$!
trap 'kill $packer 2> /dev/null' EXIT

: > "$card/logs/0"
{ nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no nvidia-smi"; } 2> /dev/null | tee -a "$card/logs/0"
bench() { timeout --kill-after=5 "$1" "$python" -m argmax_vae bench "${@:2}"; }
figure2_speed=(--model linear --latents 20x10 20x2 --seeds 10 1 64 --estimators direct gumbel_softmax)

# 1. Checks; beside them the benchmark compiles once, which the second time is read from the compiler's cache.
if [ "${CHECKS:-60}" -gt 0 ] && [ ! -e "$card/checked" ]; then
  bench "${CHECKS:-60}" "${figure2_speed[@]}" --seconds 0.01 > "$card/logs/warming" 2>&1 &
  together=()
  ! "$python" -c "import xdist" 2> /dev/null || together=(--numprocesses 4 --dist worksteal)
  timeout --signal=INT --kill-after=5 "${CHECKS:-60}" "$python" -m pytest -v -W ignore -p no:cacheprovider -m cuda \
    --tb=short "${together[@]}" tests/models/test_candidates.py tests/training/test_cuda.py > "$card/checks.txt" 2>&1
  checks=$?
  wait $!
  tail -25 "$card/checks.txt"
  [ $checks -ne 0 ] || touch "$card/checked"
  [ $checks -eq 0 ] || echo "gpu_run.sh: the checks did not pass in time (exit code $checks): see checks.txt" | tee -a "$card/logs/0"
fi

# 2. The benchmark, alone on the card; rows that are there already stay.
if [ "${BENCH:-60}" -gt 0 ] && [ ! -e "$card/measured" ]; then
  until_=$((SECONDS + ${BENCH:-60}))
  for rows in "${figure2_speed[*]}" "--eager --model linear deep mixture --seeds 10 1 64 --estimators all"; do
    [ $((until_ - SECONDS)) -gt 5 ] || break
    # shellcheck disable=SC2086
    bench $((until_ - SECONDS)) $rows --seconds 0.5 --add --output "$card/speed_cuda.csv" 2>&1 | tee -a "$card/logs/bench"
  done
  [ $((until_ - SECONDS)) -le 0 ] || touch "$card/measured"
  pack
fi

# 3. Cells in the order of the lists; processes share them, each cell belongs to the one that has locked it.
work() {
  local list
  for list in "${lists[@]}"; do
    [ "$(left)" -gt 20 ] || return
    timeout --kill-after=10 $(($(left) - 15)) "$python" -m argmax_vae reproduce "$list" "${overrides[@]}" --train-only --unrecorded
  done
}
workers=()
for number in $(seq "$processes"); do
  work > "$card/logs/worker$number" 2>&1 &
  workers+=($!)
done
wait "${workers[@]}"
kill $packer
wait $packer 2> /dev/null
pack
"$python" -m argmax_vae runs --runs "$runs"
ls -l "$out"
