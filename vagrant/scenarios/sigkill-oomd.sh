# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# systemd-oomd kills a service for its memory pressure, in user space: systemd then calls the result "oom-kill", too.
# Expect no oom_kill record: the kernel's OOM killer had no part in it.
. ./lib.sh

[ $cgroup = 2 ] || not_applicable "systemd-oomd needs cgroup v2"
[ -e /proc/pressure/memory ] || not_applicable "this kernel does not measure pressure"
command -v oomctl >/dev/null || not_applicable "systemd-oomd is not installed"
expect_none
mkdir -p /run/systemd/oomd.conf.d
printf '[OOM]\nDefaultMemoryPressureDurationSec=2s\n' >/run/systemd/oomd.conf.d/scenario.conf
finally 'systemctl stop systemd-oomd.service systemd-oomd.socket; rm /run/systemd/oomd.conf.d/scenario.conf'
finally 'systemctl stop oompressure.slice; systemctl revert oompressure.slice'
systemctl restart systemd-oomd.service
systemctl set-property --runtime oompressure.slice ManagedOOMMemoryPressure=kill ManagedOOMMemoryPressureLimit=1%
# What it holds in memory fills what it may keep, so that it is slowed down (that is the pressure); and it reads a file again
# and again that does not fit beside it, so that there is something to reclaim, without which systemd-oomd does not kill.
finally 'rm /var/tmp/oom-file'
unit oom-pressure.service Slice=oompressure.slice MemoryHigh=16M MemorySwapMax=0 -- sh -c \
	'dd if=/dev/zero of=/var/tmp/oom-file bs=1M count=80; tail /dev/zero & while :; do cat /var/tmp/oom-file >/dev/null; done'
wait_for 120 unit_ended oom-pressure.service
[ "$(show oom-pressure.service Result)" = oom-kill ] || fail "systemd says: $(show oom-pressure.service Result)"
