# SPDX-License-Identifier: Apache-2.0
"""A cgroup -> container, pod, unit: paths, and the metadata of runtimes."""
