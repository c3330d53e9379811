# SPDX-License-Identifier: Apache-2.0
"""Packages for users: wheel, Debian package, container image."""
