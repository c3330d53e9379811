#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# boot.sh [--kernel VERSION] [--cgroup 1|2]: have this Debian boot another kernel, or another cgroup version, next time.
#
# The kernel comes from the Debian that had it: 5.10 from Debian 11.  Knows nothing of Vagrant; needs root and GRUB.
set -eu

settings=/etc/default/grub.d/oomtrace.cfg

install_kernel() { # VERSION: package and menu entry
	case $1 in
	5.10) suite=bullseye ;;
	*)
		echo "boot.sh: no Debian is known to have Linux $1" >&2
		exit 2
		;;
	esac
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sed '/security/d;q')
	for each in "$mirror $suite" "${mirror%/}-security $suite-security"; do
		echo "deb $each main"
	done >/etc/apt/sources.list.d/oomtrace-kernel.list
	printf 'Package: *\nPin: release n=%s*\nPin-Priority: 1\n' "$suite" >/etc/apt/preferences.d/oomtrace-kernel
	apt-get -qq update
	package=$(apt-cache depends "linux-image-amd64=$1.*" | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$package"
	update-grub
	release=${package#linux-image-}
	# Newer kernels come first in the menu, so the entry is chosen by name.
	submenu=$(sed -n "s/^submenu .*'\(gnulinux-advanced-[^']*\)'.*/\1/p" /boot/grub/grub.cfg)
	entry=$(sed -n "s/.*'\(gnulinux-$release-advanced-[^']*\)'.*/\1/p" /boot/grub/grub.cfg)
	echo "GRUB_DEFAULT='$submenu>$entry'" >>$settings
}

mkdir -p /etc/default/grub.d
: >$settings
while [ $# -gt 1 ]; do
	case $1 in
	--kernel) install_kernel "$2" ;;
	--cgroup)
		echo "GRUB_CMDLINE_LINUX=\"\$GRUB_CMDLINE_LINUX systemd.unified_cgroup_hierarchy=$(($2 - 1))\"" >>$settings
		;;
	*) break ;;
	esac
	shift 2
done
if [ $# -gt 0 ]; then
	sed -n '4s/^# //p' "$0" >&2
	exit 2
fi
update-grub
