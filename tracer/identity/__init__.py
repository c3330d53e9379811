# SPDX-License-Identifier: Apache-2.0
"""The container, pod and unit of a cgroup: from its path, from the runtimes' files, and its network interfaces."""
