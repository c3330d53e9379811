#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# box.sh MACHINE OUT.box: make a libvirt box for a machine of the Vagrantfile, from Debian's packages alone.
#
# No image is downloaded, nothing is mounted and no virtual machine is started, so it works offline but for a Debian
# mirror ($OOMTRACE_DEBIAN_MIRROR, else that of this machine's apt).  What provision.sh would install is inside.
# Needs root (mmdebstrap unpacks files of many owners), mmdebstrap, e2fsprogs, fdisk and qemu-utils.
set -eu

disk_gib=8
machine=$1
out=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
parameters="root=LABEL=root ro quiet console=tty0 console=ttyS0,115200 net.ifnames=0"
# Emulated processors make the kernel misjudge the TSC's frequency; under KVM it uses kvm-clock, not the TSC.
parameters="$parameters tsc=unstable no_timer_check mitigations=off"
kernel_suite=
case $machine in
bookworm) suite=bookworm ;;
bookworm-5.10) suite=bookworm kernel_suite=bullseye ;;
trixie) suite=trixie ;;
bookworm-cgroup1) suite=bookworm parameters="$parameters systemd.unified_cgroup_hierarchy=0" ;;
*)
	echo "box.sh: no such machine: $machine" >&2
	exit 2
	;;
esac

work=$(mktemp -d "${TMPDIR:-/tmp}/box-$machine.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

mirror=${OOMTRACE_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' \
	'Origin: Debian' | awk '$2 !~ /-/ {print $1; exit}')}
mirror=${mirror%/}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
for each in "$suite" "$suite-updates" "$suite-security" $kernel_suite; do
	case $each in
	*-security) uri=$mirror-security ;;
	*) uri=$mirror ;;
	esac
	echo "deb [signed-by=$keyring] $uri $each main"
done >"$work/sources.list"

# The kernel of another Debian, and nothing else from there.
if [ -n "$kernel_suite" ]; then
	printf 'Package: *\nPin: release n=%s\nPin-Priority: 1\n\n' "$kernel_suite"
	printf 'Package: linux-image-cloud-amd64\nPin: release n=%s\nPin-Priority: 1001\n' "$kernel_suite"
fi >"$work/preferences"

packages=linux-image-cloud-amd64,initramfs-tools,grub-pc-bin,grub-common,systemd-sysv,systemd-resolved
packages=$packages,systemd-timesyncd,udev,dbus,kmod,procps,openssh-server,sudo,rsync,iproute2,ca-certificates
packages=$packages,$(sh "$here/packages.sh" "$suite" | paste -sd,)

# Runs in the new root.  The key is Vagrant's well-known insecure one: throw-away machines on a private network.
cat >"$work/configure" <<SETUP
useradd --create-home --shell /bin/bash --user-group vagrant
install -d -m 700 -o vagrant -g vagrant /home/vagrant/.ssh
install -m 600 -o vagrant -g vagrant /dev/stdin /home/vagrant/.ssh/authorized_keys <<KEY
ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key
KEY
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/vagrant
chmod 440 /etc/sudoers.d/vagrant
passwd --lock root >/dev/null

host=\$(echo $machine | tr . -)
echo "\$host" >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "\$host" >/etc/hosts
echo 'LABEL=root / ext4 errors=remount-ro,noatime 0 1' >/etc/fstab
: >/etc/machine-id

printf '[Match]\nName=eth*\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n[DHCPv4]\nClientIdentifier=mac\n' \
	>/etc/systemd/network/20-dhcp.network
rm -f /etc/ssh/ssh_host_*
printf 'UseDNS no\nHostKey /etc/ssh/ssh_host_ed25519_key\n' >/etc/ssh/sshd_config.d/box.conf
cat >/etc/systemd/system/ssh-host-key.service <<'UNIT'
[Unit]
Description=Make this machine's SSH host key
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
[Install]
WantedBy=multi-user.target
UNIT
systemctl --quiet enable ssh-host-key systemd-networkd systemd-resolved
systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer || true
systemctl --quiet disable systemd-oomd || true
systemctl --quiet mask systemd-networkd-wait-online systemd-firstboot

# The initramfs has what finds a virtio disk, and no more: it is unpacked by an emulated processor.
printf 'MODULES=list\nCOMPRESS=gzip\nBUSYBOX=n\n' >/etc/initramfs-tools/conf.d/box
printf 'virtio_pci\nvirtio_blk\next4\ncrc32c\ncrc32c_generic\n' >>/etc/initramfs-tools/modules
update-initramfs -u -k all

# GRUB is two images in front of the partition, and a menu of one.
version=\$(cd /boot && ls vmlinuz-* | sed s/vmlinuz-//)
mkdir -p /boot/grub
cat >/boot/grub/grub.cfg <<MENU
set timeout=0
linux /boot/vmlinuz-\$version $parameters
initrd /boot/initrd.img-\$version
boot
MENU
grub-mkimage -O i386-pc -o /boot/core.img -p '(hd0,msdos1)/boot/grub' \
	biosdisk part_msdos ext2 normal linux configfile
cp /usr/lib/grub/i386-pc/boot.img /boot
SETUP

root=$work/root
# What it mounts in the new root is gone with it, also when it is ended half-way.
unshare --mount --propagation private mmdebstrap --quiet --variant=apt --include="$packages" \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--setup-hook="install -D -m 644 '$work/preferences' \"\$1/etc/apt/preferences.d/kernel\"" \
	--customize-hook="chroot \"\$1\" sh -eu <'$work/configure'" \
	"$suite" "$root" - <"$work/sources.list"
ln -sf ../run/systemd/resolve/resolv.conf "$root/etc/resolv.conf"
mv "$root/boot/boot.img" "$root/boot/core.img" "$work"
[ "$(stat -c %s "$work/core.img")" -lt $(((1 << 20) - 512)) ]

disk=$work/disk
truncate -s "${disk_gib}G" "$disk"
echo "start=1MiB, type=83, bootable" | sfdisk --quiet --label dos "$disk"
mke2fs -q -t ext4 -L root -d "$root" -E "offset=$((1 << 20)),lazy_itable_init=1,root_owner=0:0" \
	"$disk" $(((disk_gib << 20) - (1 << 10)))k
dd if="$work/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$work/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none

qemu-img convert -c -f raw -O qcow2 "$disk" "$work/box.img"
printf '{"provider":"libvirt","format":"qcow2","virtual_size":%d}\n' "$disk_gib" >"$work/metadata.json"
mkdir -p "$(dirname "$out")"
tar -C "$work" -cf "$out.part" metadata.json box.img
mv "$out.part" "$out"
ls -lh "$out"
