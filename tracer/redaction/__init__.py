# SPDX-License-Identifier: Apache-2.0
"""Secrets in command lines, found and blanked."""
