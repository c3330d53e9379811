# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# A process asks for 200 MiB in a cgroup with a limit of 40 MiB.  No unit and no container: made by mkdir.
# Expect one record: scope memcg, the limit that of this cgroup, victim and trigger the same process.
. ./lib.sh

new_cgroup oom-memcg 40
(enter oom-memcg && exec oom-hog 200) &
expect victim.pid=$! victim.comm=oom-hog victim.cgroup=/oom-memcg trigger.pid=$! \
	incident.scope=memcg incident.group_kill=false incident.victims=1 \
	limit.cgroup=/oom-memcg limit.level=other limit.limit_bytes=$((40 << 20)) \
	"victim.anon_rss_bytes>=$((25 << 20))" "victim.anon_rss_bytes<=$((40 << 20))" \
	container=null systemd=null
wait $! || true
