# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# A container whose cgroup has memory.oom.group=1, as Kubernetes sets it, outgrows its limit: all of it is killed at once.
# Expect a record for each of the three processes, all of one incident with group_kill true.
. ./lib.sh

[ $cgroup = 2 ] || not_applicable "cgroup v1 has no memory.oom.group"
container docker oom-group --memory=40m -- /bin/sh -c \
	"/bin/sleep 1000 & /bin/sleep 1001 & $gate; exec /bin/dd if=/dev/zero of=/dev/null bs=200M count=1"
init=$(inspect docker oom-group State.Pid)
echo 1 >"/sys/fs/cgroup$(sed 's/^0:://' "/proc/$init/cgroup")/memory.oom.group"
common="incident.group_kill=true incident.victims=3 incident.scope=memcg limit.level=container container.name=oom-group"
{
	expect "victim.pid=$init" victim.comm=dd $common exit.container_init_died=true
	expect victim.comm=sleep victim.cmdline.1=1000 "victim.ppid=$init" $common
	expect victim.comm=sleep victim.cmdline.1=1001 "victim.ppid=$init" $common
}
open_gate oom-group
wait_for 60 container_ended docker oom-group
