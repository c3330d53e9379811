# SPDX-License-Identifier: Apache-2.0
"""A record -> a line: JSON in the styles that log pipelines know."""
