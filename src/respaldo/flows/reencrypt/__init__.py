"""Re-encryption: what is sealed under an older master key is carried over to the newest, or made again under it."""
