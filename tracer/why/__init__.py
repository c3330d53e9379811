# SPDX-License-Identifier: Apache-2.0
"""``oomtrace why``: sources -> search -> verdict -> words and advice."""
