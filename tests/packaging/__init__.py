# SPDX-License-Identifier: Apache-2.0
"""The packages that users install: wheel, Debian package, container image."""
