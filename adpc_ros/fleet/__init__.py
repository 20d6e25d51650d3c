# SPDX-License-Identifier: Apache-2.0
"""Replay of many bags: on Ray or in processes, resumed where it was stopped."""
