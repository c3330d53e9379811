# SPDX-License-Identifier: Apache-2.0
"""Events to records: joined, built, completed, filtered, written."""
