# SPDX-License-Identifier: Apache-2.0
"""A fleet, simulated on one machine: records of real kills, replayed by many nodes, into a real broker and a store.

Every node is an output of oomtrace as the daemon has it (queue, spool, retries, the sink for MQTT), with a connection
of its own; what is simulated is who it is, and when its processes die.
"""
