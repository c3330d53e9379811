# SPDX-License-Identifier: Apache-2.0
"""A fleet simulated on one machine: many nodes replay records of real kills to a real broker and a store.

Every node is an output as in the daemon (queue, spool, retries, the MQTT sink), with its own connection; its identity
and the times of its kills are simulated.
"""
