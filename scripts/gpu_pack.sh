#!/usr/bin/env bash
# Gathers in .carry what a machine with a GPU and no network needs besides the files of the repository, for gpu_run.sh there.
#   scripts/gpu_pack.sh [mnist|fashion_mnist|binarized_mnist|omniglot|celeba|digits]...     (default: mnist)
# WHEELS=DIR takes wheels from a folder; else pip fetches those named below, in the versions of constraints.txt.
# DATA: where data sets lie (default: $ARGMAX_VAE_DATA, else data). CARRY: where to (default: .carry).
# LIMIT_MIB: largest size of the repository's files and .carry together (default: 64).
set -euo pipefail
cd "$(dirname "$0")/.."
data=${DATA:-${ARGMAX_VAE_DATA:-data}} carry=${CARRY:-.carry} limit=${LIMIT_MIB:-64} python=${PYTHON:-python3}
packages=(hydra-core omegaconf antlr4-python3-runtime beartype)

refuse() { echo "gpu_pack.sh: $*" >&2; exit 2; }
take() { [ -e "$1" ] || refuse "$1 is missing; DATA=DIR names the directory of the data sets"; mkdir -p "$2"; cp "$1" "$2"; }

new=$carry.new
rm -rf "$new"
mkdir -p "$new/wheels" "$new/data"
[ $# -gt 0 ] || set -- mnist
for name in "$@"; do
  case $name in
    digits) ;;
    mnist) for part in {train,t10k}-{images-idx3,labels-idx1}; do take "$data/MNIST/raw/$part-ubyte.gz" "$new/data/MNIST/raw"; done ;;
    fashion_mnist)
      for part in {train,t10k}-{images-idx3,labels-idx1}; do take "$data/FashionMNIST/raw/$part-ubyte.gz" "$new/data/FashionMNIST/raw"; done ;;
    binarized_mnist) for part in train valid test; do take "$data/BinarizedMNIST/binarized_mnist_$part.npy" "$new/data/BinarizedMNIST"; done ;;
    omniglot) take "$data/Omniglot/chardata.mat" "$new/data/Omniglot" ;;
    celeba)
      for part in img64.zip list_attr_celeba.zip list_eval_partition.txt; do take "$data/CelebA/$part" "$new/data/CelebA"; done
      gzip "$new/data/CelebA/list_eval_partition.txt" ;;
    *) refuse "$name: unknown data set; there are mnist, fashion_mnist, binarized_mnist, omniglot, celeba, digits" ;;
  esac
done
if [ -n "${WHEELS:-}" ]; then
  compgen -G "$WHEELS/*.whl" > /dev/null || refuse "WHEELS=$WHEELS holds no *.whl"
  cp "$WHEELS"/*.whl "$new/wheels"
else
  "$python" -m pip wheel --quiet --no-deps --constraint constraints.txt --wheel-dir "$new/wheels" "${packages[@]}"
fi
if commit=$(git rev-parse --short=12 HEAD 2> /dev/null); then
  [ -z "$(git status --porcelain -- src)" ] || commit+=-dirty
  echo "$commit" > "$new/commit"
fi
bytes=$({ git ls-files --cached --others --exclude-standard -z 2> /dev/null || true; find "$new" -type f -print0; } \
  | du --bytes --total --files0-from=- 2> /dev/null | tail -1 | cut -f1)
mib=$(((bytes + 1048575) / 1048576))
[ "$mib" -le "$limit" ] || refuse "$* make $mib MiB with the repository, more than LIMIT_MIB=$limit: pack fewer data sets"
rm -rf "$carry"
mv "$new" "$carry"
echo "$carry: $*, $(ls "$carry/wheels" | wc -l) wheels, commit $(cat "$carry/commit" 2> /dev/null || echo unknown); $mib MiB with the repository"
