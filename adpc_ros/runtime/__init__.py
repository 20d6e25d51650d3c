"""How the network is computed fast, and when it stops."""
