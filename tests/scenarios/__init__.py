# SPDX-License-Identifier: Apache-2.0
"""vagrant/scenarios on a machine that was provisioned as Vagrant's machines are, without Vagrant."""
