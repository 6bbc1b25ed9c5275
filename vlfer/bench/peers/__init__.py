"""Peers: small networks that ship their weights in a package, run over the same crops in their own environments."""
