"""Keys of every kind xfleet uses, on `cryptography` alone: nkeys, broker tokens, certificates, signatures, sealing."""
