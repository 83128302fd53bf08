"""Bytes ↔ model, pure: packs, segments, trees, manifests and the header. A leaf: opens no seal and reads no storage."""
