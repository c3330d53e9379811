# SPDX-License-Identifier: Apache-2.0
"""Options, and the configuration file."""
