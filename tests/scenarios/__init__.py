# SPDX-License-Identifier: Apache-2.0
"""vagrant/scenarios on a machine provisioned as by Vagrant, without Vagrant."""
