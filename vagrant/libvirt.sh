#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# libvirt.sh start|stop: run libvirt's daemons where no service manager does; nothing happens where libvirt answers.
#
# With OOMTRACE_VM_TCG=1 /dev/kvm is hidden from them: one that opens and then hangs, as in some containers and
# nested machines, makes libvirt ask QEMU about it for minutes.  Needs root.
set -eu

run=/run/oomtrace-libvirt
export LIBVIRT_DEFAULT_URI=qemu:///system

answers() {
	virsh --quiet version >/dev/null 2>&1
}

start() {
	if answers; then return; fi
	mkdir -p $run
	hide=
	[ "${OOMTRACE_VM_TCG:-}" != 1 ] || [ ! -e /dev/kvm ] || hide="mount --bind /dev/null /dev/kvm &&"
	setsid virtlogd --pid-file $run/virtlogd.pid >$run/virtlogd.log 2>&1 </dev/null &
	setsid unshare --mount --propagation private sh -c "$hide exec libvirtd --pid-file $run/libvirtd.pid" \
		>$run/libvirtd.log 2>&1 </dev/null &
	for _ in $(seq 300); do
		if answers; then return; fi
		sleep 0.2
	done
	tail $run/*.log >&2
	exit 1
}

# Only what start() started; with the networks, whose dnsmasq would stay.
stop() {
	[ -e $run/libvirtd.pid ] || return 0
	for network in $(virsh --quiet net-list --name); do
		virsh --quiet net-destroy "$network"
	done
	for daemon in libvirtd virtlogd; do
		pid=$(cat $run/$daemon.pid 2>/dev/null) || continue
		kill "$pid" || continue
		while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	done
	rm -r $run
}

case ${1:-} in
start) start ;;
stop) stop ;;
*)
	sed -n '4s/^# //p' "$0" >&2
	exit 2
	;;
esac
