# SPDX-License-Identifier: Apache-2.0
"""The kernel's interfaces, without a word about OOM kills: procfs, cgroupfs, bpffs, capabilities, libbpf."""
