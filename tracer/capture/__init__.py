# SPDX-License-Identifier: Apache-2.0
"""The BPF programs: chosen, loaded, attached, pinned, and read."""
