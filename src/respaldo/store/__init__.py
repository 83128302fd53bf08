"""The store: packs of sealed blocks, the local index of chunks, and the repository that holds them together."""
