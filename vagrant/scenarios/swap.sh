# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# A service with a limit of 40 MiB and 48 MiB of swap to go to asks for more than both.
# Expect one record: a large part of the victim is swapped out.
. ./lib.sh

file=/var/tmp/oom-swap
dd if=/dev/zero of=$file bs=1M count=48 status=none
chmod 600 $file
mkswap --quiet $file
swapon --priority 100 $file
finally "swapoff $file; rm $file"
swap_mib=$(($(awk '/^SwapTotal:/ {print $2}' /proc/meminfo) >> 10))
unit oom-swap.service MemoryMax=40M -- oom-hog $((swap_mib + 200))
pid=$(show oom-swap.service ExecMainPID)
expect "victim.pid=$pid" victim.comm=oom-hog incident.scope=memcg limit.level=unit limit.limit_bytes=$((40 << 20)) \
	"victim.swap_bytes>=$((20 << 20))" "victim.rss_bytes<=$((48 << 20))" systemd.unit=oom-swap.service
wait_for 120 unit_ended oom-swap.service
