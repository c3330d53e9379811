# SPDX-License-Identifier: Apache-2.0
"""The command line's verbs, a module each: they and tracer/cli.py alone import typer."""
