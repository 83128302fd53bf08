"""Keys, seals and compression: what turns plaintext into stored bytes and back. A leaf: knows no objects."""
