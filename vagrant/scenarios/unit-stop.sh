# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# A child of a service outgrows MemoryMax=; OOMPolicy=stop makes systemd end the whole service, with SIGTERM.
# Expect one record, for the child alone: limit and unit are the service, the parent its main process.
. ./lib.sh

unit oom-stop.service MemoryMax=40M MemorySwapMax=0 OOMPolicy=stop -- sh -c 'oom-hog 200; exec sleep 1000'
main=$(show oom-stop.service ExecMainPID)
expect victim.comm=oom-hog "victim.ppid=$main" victim.cgroup=/system.slice/oom-stop.service incident.scope=memcg \
	incident.group_kill=false limit.level=unit limit.cgroup=/system.slice/oom-stop.service \
	limit.limit_bytes=$((40 << 20)) systemd.unit=oom-stop.service systemd.slice=system.slice container=null
# On cgroup v1 systemd does not hear of OOM kills, and the service goes on.
if [ $cgroup = 2 ]; then
	wait_for 60 unit_ended oom-stop.service
	[ "$(show oom-stop.service Result)" = oom-kill ] || fail "systemd says: $(show oom-stop.service Result)"
else
	wait_for 60 grep -q '^sleep$' "/proc/$main/comm"
fi
