#!/usr/bin/env bash
# Starts a Ray cluster of two nodes on two loopback addresses, runs a sweep on it, compares it with the same sweep in one
# process, and stops the cluster. Needs the extra `ray`. Arguments are those of same_rows.py, such as --output FILE.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
ray=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")/ray
head=127.0.0.2
worker=127.0.0.3
port=${PORT:-6399}
temporary=$(mktemp -d /tmp/ray_cluster.XXXXXX)
nodes=()

stop() {
  for node in "${nodes[@]}"; do
    kill -TERM "$node" 2>/dev/null || true
  done
  for node in "${nodes[@]}"; do
    wait "$node" 2>/dev/null || true
  done
  rm -rf "$temporary"
}
trap stop EXIT

export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$temporary/token
"$python" -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH"
chmod 600 "$RAY_AUTH_TOKEN_PATH"

start() {
  (cd "$temporary" && exec "$ray" start --block --num-cpus=1 --object-store-memory=100000000 "$@") >>"$temporary/log" 2>&1 &
  nodes+=("$!")
}
alive() {
  timeout 60 "$python" - "$1" 2>>"$temporary/log" <<END
import sys, ray
ray.init(address="$head:$port", _node_ip_address="$head", log_to_driver=False)
sys.exit(sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]))
END
}
wait_for() {
  for _ in $(seq 20); do
    alive "$1" && return
    sleep 2
  done
  tail -n 40 "$temporary/log"
  echo "FAILED: the cluster has not got $1 nodes"
  exit 1
}

start --head --node-ip-address="$head" --port="$port" --include-dashboard=false --temp-dir="$temporary/head"
wait_for 1
start --node-ip-address="$worker" --address="$head:$port"
wait_for 2
echo "two nodes are up at $head:$port"
version=$("$python" -c 'import ray; print(ray.__version__)')
"$python" "$top/tests/acceptance/same_rows.py" "Ray $version, two nodes" \
  hydra/launcher=ray_cluster "hydra.launcher.ray.init.address=$head:$port" \
  "+hydra.launcher.ray.init._node_ip_address=$head" "$@"
