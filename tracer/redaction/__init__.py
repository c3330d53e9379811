# SPDX-License-Identifier: Apache-2.0
"""Redact secrets in command lines."""
