"""The file system: what to leave out, what a file has besides content, and safe writing below a target."""
