# SPDX-License-Identifier: Apache-2.0
"""Why something ended: sources -> search -> verdict -> words, for ``oomtrace why``."""
