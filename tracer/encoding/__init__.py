# SPDX-License-Identifier: Apache-2.0
"""Records to lines of JSON and back; styles for log pipelines."""
