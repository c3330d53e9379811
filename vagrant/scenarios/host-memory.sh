# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# A service without a limit asks for twice the memory that the whole machine has; its OOMScoreAdjust= makes it the victim.
# Expect one record: scope host, no limit (null), the victim in that service.
. ./lib.sh

# Before it kills, the kernel drops the page cache, and so the text of all that runs, over and over; protected, it is
# left alone.  cgroup v1 has no such protection: there this may take minutes.
for each in system.slice user.slice; do
	[ $cgroup = 1 ] || systemctl set-property --runtime $each MemoryMin=300M
	finally "systemctl revert $each"
done
total_mib=$(($(awk '/^MemTotal:|^SwapTotal:/ {sum += $2} END {print sum}' /proc/meminfo) >> 10))
unit oom-host.service OOMScoreAdjust=1000 Slice=oom.slice -- oom-hog $((2 * total_mib))
pid=$(show oom-host.service ExecMainPID)
expect "victim.pid=$pid" victim.comm=oom-hog victim.oom_score_adj=1000 victim.cgroup=/oom.slice/oom-host.service \
	incident.scope=host limit=null systemd.unit=oom-host.service systemd.slice=oom.slice container=null
wait_for 400 unit_ended oom-host.service
