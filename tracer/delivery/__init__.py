# SPDX-License-Identifier: Apache-2.0
"""Lines -> outputs: queues, spools, sinks."""
