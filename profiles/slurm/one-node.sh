#!/usr/bin/env bash
# A Slurm of this one machine, to try the profile beside this file: profiles/slurm/one-node.sh start | stop
#
# Debian or Ubuntu, as root, in a container too: it needs neither systemd nor cgroups, after
#   apt-get install slurm-wlm munge
# Its two GPUs are stand-ins: Slurm hands them out as real ones, but there is nothing behind them.
set -euo pipefail

folder=/var/lib/sdnet-slurm
mark="# Written by profiles/slurm/one-node.sh of sdnet."

fail() {
    echo "one-node.sh: $*" >&2
    exit 1
}

configure() {
    local host
    host=$(hostname -s)
    mkdir -p "$folder"/{state,spool}
    # Slurm sets CUDA_VISIBLE_DEVICES for character devices alone: these two are /dev/null under other names.
    for gpu in 0 1; do
        [ -e "$folder/gpu$gpu" ] || mknod "$folder/gpu$gpu" c 1 3
    done
    cat > /etc/slurm/gres.conf <<END
$mark
NodeName=$host Name=gpu File=$folder/gpu[0-1]
END
    # Without DefMemPerCPU each job would take all the memory; config_overrides lets a small machine have eight cores.
    cat > /etc/slurm/slurm.conf <<END
$mark
ClusterName=sdnet
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=500
MinJobAge=3600
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=64000 Gres=gpu:2
PartitionName=gpu Nodes=$host Default=YES MaxTime=UNLIMITED State=UP
END
}

start() {
    [ "$(id -u)" = 0 ] || fail "must run as root"
    for command in slurmctld slurmd munged sinfo; do
        [ -n "$(command -v $command)" ] || fail "$command is not installed: apt-get install slurm-wlm munge"
    done
    if [ -e /etc/slurm/slurm.conf ] && ! grep -qxF "$mark" /etc/slurm/slurm.conf; then
        fail "/etc/slurm/slurm.conf belongs to another Slurm; this script leaves it alone"
    fi
    configure
    if ! munge -n > /dev/null 2>&1; then
        install -d -o munge -g munge -m 755 /run/munge
        runuser -u munge -- "$(command -v munged)"
    fi
    slurmctld
    slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --states=idle --format=%D 2> /dev/null | grep -qx 1; then
            sinfo --Format=partition,nodes,cpus,memory,gres,statelong
            return
        fi
        sleep 0.5
    done
    fail "the node is not idle after 30 s; see $folder/*.log"
}

stop() {
    for daemon in slurmctld slurmd; do
        pid=$(cat "$folder/$daemon.pid" 2> /dev/null) || continue
        # A file that a killed daemon left may name a process of another program by now.
        [ "$(cat "/proc/$pid/comm" 2> /dev/null)" != $daemon ] || kill "$pid"
    done
}

case "${1-}" in
start | stop) "$1" ;;
*) fail "say start or stop" ;;
esac
