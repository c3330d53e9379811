# SPDX-License-Identifier: Apache-2.0
"""What every package uses, and what uses none of them: errors, times, text for people, waiting for a disk."""
