# SPDX-License-Identifier: Apache-2.0
"""Processes, cameras and recorders around a segmentation node, in a domain of their own."""
