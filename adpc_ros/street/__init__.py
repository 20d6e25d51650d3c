# SPDX-License-Identifier: Apache-2.0
"""A synthetic, labelled drive through a street, for demonstrations, tests and training."""

from adpc_ros.street.drive import StreetDrive

__all__ = ['StreetDrive']
