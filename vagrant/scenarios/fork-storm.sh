# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# Forty processes at once ask for 32 MiB each in a cgroup with a limit of 16 MiB: every one of them is killed.
# Expect forty records, one for each process id, and none lost.
. ./lib.sh

new_cgroup oom-storm 16
for _ in $(seq 40); do
	(enter oom-storm && exec dd if=/dev/zero of=/dev/null bs=32M count=1) 2>/dev/null &
	expect victim.pid=$! victim.cgroup=/oom-storm incident.scope=memcg incident.victims=1 limit.cgroup=/oom-storm
done
wait
