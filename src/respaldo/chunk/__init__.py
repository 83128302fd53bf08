"""Content-defined chunking: where a stream of bytes is cut so that what was stored before is found again."""
