# SPDX-License-Identifier: Apache-2.0
"""How the network is computed fast, and when it stops."""
