"""Repair: mends what can be mended, sets aside what cannot, and marks what is lost, so that all else goes on."""
