# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# Somebody asks for an OOM kill (echo f >/proc/sysrq-trigger) while there is memory enough.
# Expect one record: scope sysrq, order -1, no limit; the victim has the highest score, for its OOMScoreAdjust=.
. ./lib.sh

unit oom-sysrq.service OOMScoreAdjust=1000 -- oom-hog --hold 60
pid=$(show oom-sysrq.service ExecMainPID)
grown() {
	[ "$(awk '/^VmRSS:/ {print $2}' "/proc/$pid/status")" -gt $((60 << 10)) ]
}
wait_for 60 grown
expect "victim.pid=$pid" victim.comm=oom-hog incident.scope=sysrq incident.order=-1 limit=null \
	"victim.rss_bytes>=$((60 << 20))" systemd.unit=oom-sysrq.service
echo f >/proc/sysrq-trigger
wait_for 60 unit_ended oom-sysrq.service
