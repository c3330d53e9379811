#!/.vm/busybox sh
# SPDX-License-Identifier: Apache-2.0
#
# PID 1 of a guest, in the initramfs and, after switch_root, in a Debian without an init system.  In a Debian with
# systemd, which takes over, vm.service starts it.
# In: VM_OUT, VM_STATUS (serial ports), VM_CGROUP, VM_BTF and VM_INIT from the kernel command line, /.vm/command, /host.
# Out: the command's output on one port, "boot SECONDS" and "exit STATUS" on the other, /out as a tar on /dev/vm-out.
# It uses busybox where possible, which starts twice as fast under emulation as Debian's tools.

b=/.vm/busybox

find_disks() { # NVMe disks are probed in no certain order, so they carry their names as serial numbers
	for disk in /sys/block/nvme*n1; do
		read -r serial <"$disk/device/serial" && $b ln -s "${disk##*/}" "/dev/vm-${serial%% *}"
	done
}

mount_cgroups() {
	if [ "$VM_CGROUP" = 2 ]; then
		$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
		echo "+memory +pids +cpu +cpuset" >/sys/fs/cgroup/cgroup.subtree_control
		return
	fi
	$b mount -t tmpfs -o size=1M cgroup /sys/fs/cgroup
	while read -r controller hierarchy cgroups enabled; do
		case $controller$enabled in '#'* | *0) continue ;; esac
		$b mkdir "/sys/fs/cgroup/$controller"
		$b mount -t cgroup -o "$controller" "$controller" "/sys/fs/cgroup/$controller" ||
			$b rmdir "/sys/fs/cgroup/$controller"
	done </proc/cgroups
}

# A global OOM kill happens only when nothing is left to reclaim.  Until then the kernel drops text of running programs,
# and reads it again from the disk, repeatedly: minutes under emulation.  ramfs pages are never reclaimed, and
# count as file memory like those of a disk (unlike tmpfs).  mlock is not enough: 7.3 drops large folios anyway.
pin() {
	set -- /usr/bin/python3.11 /usr/bin/dash /usr/lib/python3.11/lib-dynload /opt/site/orjson
	for name in ld-linux-*.so.* libc.so.6 libm.so.6 libz.so.1 libffi.so.8 libexpat.so.1 libelf.so.1 libbpf.so.1; do
		set -- "$@" /usr/lib/*-linux-gnu/$name
	done
	$b mkdir /pinned
	$b mount -t ramfs ramfs /pinned
	$b cp -rL "$@" /pinned
	for path in "$@"; do $b mount --bind "/pinned/${path##*/}" "$path"; done
}

mount_headers() { # as if the packages of /dev/vm-headers were installed
	$b mkdir -p /opt/headers "/lib/modules/$($b uname -r)"
	$b mount -t ext4 -o ro /dev/vm-headers /opt/headers
	$b ln -s /opt/headers/usr/src/* /usr/src/
	$b ln -s /opt/headers/usr/lib/* /usr/lib/ 2>/dev/null
	$b ln -s /opt/headers/lib/modules/*/* "/lib/modules/$($b uname -r)/"
}

find_root() { # PID 1 in the initramfs
	$b mkdir -p /dev /proc /sys /new
	$b mount -t devtmpfs dev /dev
	$b mount -t proc proc /proc
	$b mount -t sysfs sys /sys
	find_disks
	$b mount -t ext4 -o noatime /dev/vm-root /new || $b poweroff -f
	for folder in .vm host out; do
		$b mkdir -p /new/$folder /$folder
		$b mount -t tmpfs -o mode=755 $folder /new/$folder
		$b cp -a /$folder/. /new/$folder
	done
	echo "out=/dev/$VM_OUT status=/dev/$VM_STATUS" >/new/.vm/ports
	[ "$VM_BTF" = no ] && $b mount -t tmpfs -o ro none /sys/kernel/btf
	for folder in dev proc sys; do $b mount --move /$folder /new/$folder; done
}

switch_to_systemd() {
	$b mkdir -p /new/usr/lib/modules
	$b mount -t ext4 -o ro /new/dev/vm-modules /new/usr/lib/modules
	$b mount -t tmpfs -o mode=755 run /new/run
	$b mkdir -p /new/run/systemd/system
	$b cp /.vm/vm.service /new/run/systemd/system
	unset VM_OUT VM_STATUS VM_CGROUP VM_BTF VM_INIT
	exec $b switch_root /new /sbin/init
}

set_up() { # what an init system does
	$b mkdir -p /dev/pts /dev/shm
	for folder in /tmp /run /dev/shm; do $b mount -t tmpfs tmpfs $folder; done
	$b mount -t devpts devpts /dev/pts
	$b mount -t tracefs tracefs /sys/kernel/tracing
	$b mount -t debugfs debugfs /sys/kernel/debug
	$b mount -t bpf bpf /sys/fs/bpf
	$b ln -s /proc/self/fd /dev/fd
	mount_cgroups
	$b ip link set lo up
	$b hostname vm
	[ -e /dev/vm-headers ] && mount_headers
	pin
	# The kernel panics without a candidate, even while the last victim's memory is being freed: provide some.
	for decoy in 1 2 3 4; do
		(echo -990 >/proc/self/oom_score_adj && exec $b sleep 100000) </dev/null >/dev/null 2>&1 &
	done
}

run_command() {
	export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
	. /.vm/ports
	unset VM_OUT VM_STATUS VM_CGROUP VM_BTF VM_INIT
	$b stty -F "$out" raw -echo
	read -r up idle </proc/uptime
	echo "boot $up" >"$status"
	(cd /host && exec $b setsid /bin/sh /.vm/command) </dev/null >"$out" 2>&1
	code=$?
	if [ -e /dev/vm-out ]; then
		$b dmesg >/out/dmesg.txt
		[ -d /run/systemd/system ] && journalctl --boot --output=short-monotonic >/out/journal.txt
		$b tar -cf /dev/vm-out -C /out .
		$b sync
	fi
	$b stty -F "$out" -echo # waits until all of the output has left
	echo "exit $code" >"$status"
	echo o >/proc/sysrq-trigger
	$b sleep 100
}

case $1 in
second)
	export PYTHONPATH=/opt/site
	set_up
	run_command
	;;
command)
	run_command
	;;
*) # words of the command line that the kernel does not know
	find_root
	[ "$VM_INIT" = systemd ] && switch_to_systemd
	echo -1000 >/new/proc/self/oom_score_adj # inherited by all that follows: tests raise it for their victims
	exec $b switch_root /new /.vm/init second
	;;
esac
