# SPDX-License-Identifier: Apache-2.0
"""Options of the daemon, and the configuration file."""
