#!/usr/bin/env bash
# Starts SLURM on the loopback address (munged, slurmctld, slurmd: a node of this machine), runs a sweep through it, compares it with
# the same sweep in one process, and stops all three. Needs root, Debian's slurm-wlm and munge, and the extra `slurm`.
# Arguments are those of same_rows.py, such as --output FILE.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
cpus=$(nproc)
temporary=$(mktemp -d /tmp/slurm_local.XXXXXX)
daemons=()

stop() {
  status=$?
  if [ "$status" -ne 0 ]; then
    tail -n 20 "$temporary"/*.log || true
  fi
  scancel --quiet --user="$(id -un)" 2>/dev/null || true
  for daemon in "${daemons[@]}"; do
    kill -TERM "$daemon" 2>/dev/null || true
  done
  for daemon in "${daemons[@]}"; do
    wait "$daemon" 2>/dev/null || true
  done
  rm -rf "$temporary"
}
trap stop EXIT

mkdir "$temporary/state" "$temporary/spool"
head -c 1024 /dev/urandom >"$temporary/key"
chmod 600 "$temporary/key"
cat >"$temporary/slurm.conf" <<END
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$temporary/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$temporary/state
SlurmdSpoolDir=$temporary/spool
SlurmctldPidFile=$temporary/slurmctld.pid
SlurmdPidFile=$temporary/slurmd.pid
SlurmctldLogFile=$temporary/slurmctld.log
SlurmdLogFile=$temporary/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$temporary/slurm.conf

munged --foreground --force --key-file="$temporary/key" --socket="$temporary/munge.socket" \
  --pid-file="$temporary/munged.pid" --log-file="$temporary/munged.log" --seed-file="$temporary/munged.seed" \
  >"$temporary/munged.out.log" 2>&1 &
daemons+=("$!")
until [ -S "$temporary/munge.socket" ]; do
  kill -0 "${daemons[0]}"
  sleep 0.2
done
slurmctld -D >"$temporary/slurmctld.out.log" 2>&1 &
daemons+=("$!")
slurmd -D >"$temporary/slurmd.out.log" 2>&1 &
daemons+=("$!")
for _ in $(seq 60); do
  if timeout 10 sinfo --noheader --format=%t 2>/dev/null | grep -q idle; then
    break
  fi
  sleep 1
done
sinfo
timeout 60 srun --time=1 hostname >/dev/null
"$python" "$top/tests/acceptance/same_rows.py" "$(slurmctld -V | sed 's/slurm-wlm/SLURM/'), one node" \
  hydra/launcher=slurm hydra.launcher.cpus_per_task=1 "$@"
