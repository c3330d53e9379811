# SPDX-License-Identifier: Apache-2.0
"""What of this host the daemon can use, as `oomtrace doctor` shows it."""
