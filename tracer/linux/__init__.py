# SPDX-License-Identifier: Apache-2.0
"""The kernel's interfaces, independent of OOM kills: procfs, cgroupfs, bpffs, capabilities, libbpf."""
