# shellcheck shell=bash
# lab.sh: the parts of the cluster that tests/slurm/cluster starts; sourced by it, and by what runs on it.
#
#   node_start N    switches node N (1 to 4) on; it is idle a moment later
#   node_kill N     pulls its plug: every process of the node is gone at once
#   controller_start, controller_stop
lab_nodes=4
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_tcp_if_include=127.0.0.1/32 OMPI_MCA_oob_tcp_if_include=127.0.0.1/32

# munge's credentials live 5 s, not 120: a requeued job starts only when those of its last start have expired.
lab_configure() {
    local n
    cat > "$MOAI_LAB/slurm.conf" <<END
ClusterName=lab
SlurmctldHost=login(127.0.0.1)
SlurmctldPort=16817
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$MOAI_LAB/munge/socket,cred_expire=5
StateSaveLocation=$MOAI_LAB/state
SlurmdSpoolDir=$MOAI_LAB/spool/%n
TmpFS=$MOAI_LAB/tmp/%n
SlurmctldPidFile=$MOAI_LAB/run/slurmctld.pid
SlurmdPidFile=$MOAI_LAB/run/slurmd-%n.pid
SlurmctldLogFile=$MOAI_LAB/log/slurmctld
SlurmdLogFile=$MOAI_LAB/log/%n
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
UnkillableStepTimeout=10
MinJobAge=600
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
END
    for n in $(seq $lab_nodes); do
        echo "NodeName=node$n NodeHostname=node$n NodeAddr=127.0.0.1 Port=$((17000 + n)) CPUs=2 RealMemory=1000 State=UNKNOWN"
    done >> "$MOAI_LAB/slurm.conf"
}

munge_start() {
    local key="$MOAI_LAB/munge/key"
    (umask 077; head -c 1024 /dev/urandom > "$key")
    munged --force --key-file="$key" --socket="$MOAI_LAB/munge/socket" --pid-file="$MOAI_LAB/munge/pid" \
        --log-file="$MOAI_LAB/munge/log" --seed-file="$MOAI_LAB/munge/seed"
}

controller_start() { slurmctld; }

controller_stop() {
    kill "$(cat "$MOAI_LAB/run/slurmctld.pid")"
    while kill -0 "$(cat "$MOAI_LAB/run/slurmctld.pid")"; do sleep 0.1; done 2> /dev/null
}

# host_name NAME: of this namespace, which can look up itself alone: the others have the same address, so Open MPI
# would take them for this one.
host_name() {
    hostname "$1"
    echo "127.0.0.1 localhost $1" > "$MOAI_LAB/hosts/$1"
    mount --bind "$MOAI_LAB/hosts/$1" /etc/hosts
}
export -f host_name

# The node's first process holds its namespaces: unshare's pid is the plug.
node_start() {
    unshare --uts --pid --mount --ipc --fork --kill-child --mount-proc bash -c '
        host_name "node$1"
        mount -t tmpfs -o mode=1777 tmpfs /dev/shm
        slurmd -D -N "node$1" &
        wait' node "$1" > /dev/null 2>&1 &
    echo $! > "$MOAI_LAB/run/node$1"
    disown                                    # or bash tells how it died
}

node_kill() { kill -9 "$(cat "$MOAI_LAB/run/node$1")"; }

lab_start() {
    local n
    ip link set lo up
    ip address add 127.0.0.2/8 dev lo         # getaddrinfo takes a host that has 127.0.0.1 alone for one without IPv4
    mkdir -p "$MOAI_LAB"/{munge,state,spool,tmp,run,log,hosts,shared}
    host_name login
    for n in $(seq $lab_nodes); do mkdir -m 1777 "$MOAI_LAB/tmp/node$n" "$MOAI_LAB/spool/node$n"; done
    lab_configure
    munge_start
    controller_start
    for n in $(seq $lab_nodes); do node_start "$n"; done
    n=0
    until [ "$(sinfo -h -N -p main -t idle 2> /dev/null | wc -l)" = $lab_nodes ]; do
        [ $((n += 1)) -lt 100 ] || { echo "tests/slurm/cluster: not up within 30 s"; tail -n 20 "$MOAI_LAB"/log/*; exit 1; } >&2
        sleep 0.1
    done
}
