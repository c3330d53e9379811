#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# package.sh: build the Debian package that provision.sh installs, of the working tree, into dist/.  On a host that is no
# Debian the machine does it itself.
set -eu
cd "$(dirname "$0")/.."

if ! command -v apt-get >/dev/null; then
	echo "no Debian here: the machine builds its package itself"
	exit 0
fi
make --silent deb
