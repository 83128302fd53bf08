"""Parity: switched on and off, made for what lacks it, and used to put damaged objects right."""
