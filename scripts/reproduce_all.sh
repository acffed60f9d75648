#!/usr/bin/env bash
# Trains and writes tables and figures in order, but for pictures and scores of generated images, which figure4.py and
# figure7.py make of finished runs; stop it when you like, the same command goes on.
# Arguments are overrides for every configuration, such as paths.data=/data/torchvision.
set -euo pipefail
cd "$(dirname "$0")/.."
configs=(
  figure2_search figure2_search_gumbel_softmax figure2 figure2_control_variates section61
  estimators_search estimators_search_gumbel_rao estimators figure1 figure1_20x2
  figure3_search figure3_search_gumbel_softmax figure3 figure3_2019
  figure6_search figure6_search_gumbel_softmax figure6
  figure4_search figure4_search_gumbel_softmax figure4
)
for config in "${configs[@]}"; do
  argmax-vae reproduce "$config" "$@"
done
python scripts/update_readme.py
