# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# A child of a service outgrows MemoryMax=; with OOMPolicy=continue the service goes on, and systemctl shows no failure.
# Expect one record, for the child: what systemctl hides is told here.
. ./lib.sh

unit oom-continue.service MemoryMax=40M MemorySwapMax=0 OOMPolicy=continue -- \
	sh -c 'oom-hog 200; exec sleep 1000'
main=$(show oom-continue.service ExecMainPID)
expect victim.comm=oom-hog "victim.ppid=$main" incident.scope=memcg limit.level=unit \
	limit.cgroup=/system.slice/oom-continue.service limit.limit_bytes=$((40 << 20)) systemd.unit=oom-continue.service
wait_for 60 grep -q '^sleep$' "/proc/$main/comm"
[ "$(show oom-continue.service ActiveState)" = active ] || fail "the service did not go on"
