#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# provision.sh TREE: install oomtrace, container runtimes and oom-scenario on this Debian with systemd.
#
# TREE is the project's folder, with what package.sh put into its dist/.  Knows nothing of Vagrant; needs root.  What is
# installed already is not fetched again, and oomtrace is started anew.
set -eu

tree=$1
. /etc/os-release
export DEBIAN_FRONTEND=noninteractive

installed() { # PACKAGE
	dpkg-query --show --showformat='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}

install_packages() {
	missing=
	for package in $(sh "$tree/vagrant/packages.sh" "$VERSION_CODENAME"); do
		installed "$package" || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	apt-get -qq update
	apt-get -qq install -y --no-install-recommends $missing
}

# What package.sh could not do on the host.
build_package() {
	[ ! -e "$(ls -t "$tree"/dist/oomtrace_*.deb 2>/dev/null | head -n 1)" ] || return 0
	apt-get -qq update
	apt-get -qq install -y --no-install-recommends make
	sh "$tree/vagrant/package.sh"
}

install_oomtrace() {
	package=$(ls -t "$tree"/dist/oomtrace_*.deb | head -n 1)
	apt-get -qq install -y --no-install-recommends --reinstall --allow-downgrades "$package" >/dev/null
	systemctl enable --quiet oomtrace.service
	systemctl restart oomtrace.service
}

# An image without a registry: busybox, and a link for each of its applets.
make_image() {
	root=$(mktemp -d)
	mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/gate" "$root/scratch"
	cp /bin/busybox "$root/bin"
	for applet in $(busybox --list); do
		[ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
	done
	systemctl enable --quiet --now docker.service
	tar -C "$root" -cf "$root.tar" .
	docker import "$root.tar" localhost/oomtrace-busybox >/dev/null
	podman import --quiet "$root.tar" localhost/oomtrace-busybox >/dev/null
	rm -r "$root" "$root.tar"
}

install_scenarios() {
	folder=/usr/local/lib/oom-scenario
	rm -rf $folder
	mkdir -p $folder
	cp -r "$tree/vagrant/scenarios" "$tree/vagrant/oom_scenario" $folder
	install -m 755 "$tree/vagrant/hog" /usr/local/bin/oom-hog
	printf '#!/bin/sh\nPYTHONPATH=%s exec python3 -m oom_scenario "$@"\n' $folder >/usr/local/bin/oom-scenario
	chmod 755 /usr/local/bin/oom-scenario
}

install_packages
build_package
install_oomtrace
make_image
install_scenarios
echo "Linux $(uname -r), cgroup v$([ -d /sys/fs/cgroup/memory ] && echo 1 || echo 2): $(oomtrace --version), " \
	"$(systemctl is-active oomtrace.service); next: oom-scenario --list"
