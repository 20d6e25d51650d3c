# SPDX-License-Identifier: Apache-2.0
"""Replay: a recorded drive through the node, simulated or live, and what became of it."""
