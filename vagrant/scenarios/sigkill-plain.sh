# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# kill -9 of a service that is near its limit of 60 MiB.
# Expect no oom_kill record; and no sigkill record, which only processes in containers have (--sigkill containers).
. ./lib.sh

expect_none
unit oom-plain.service MemoryMax=60M MemorySwapMax=0 -- oom-hog --hold 40
pid=$(show oom-plain.service ExecMainPID)
grown() {
	[ "$(awk '/^VmRSS:/ {print $2}' "/proc/$pid/status")" -gt $((40 << 10)) ]
}
wait_for 60 grown
kill -9 "$pid"
wait_for 60 unit_ended oom-plain.service
[ "$(show oom-plain.service Result)" = signal ] || fail "systemd says: $(show oom-plain.service Result)"
