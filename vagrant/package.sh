#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# package.sh: put what provision.sh installs into dist/: the Debian package of the working tree, and, for Debian 12,
# which has no python3-orjson, that module from PyPI.  On a host that is no Debian the machine does it itself.
set -eu
cd "$(dirname "$0")/.."

if ! command -v apt-get >/dev/null; then
	echo "no Debian here: the machine builds its package itself"
	exit 0
fi
! grep -q '^deb:' Makefile || make --silent deb
for each in dist/orjson-*-cp311-*.whl; do
	[ -e "$each" ] || python3 -m pip download --quiet --no-deps --only-binary=:all: --dest dist \
		--python-version 3.11 --implementation cp --platform manylinux2014_x86_64 orjson
done
