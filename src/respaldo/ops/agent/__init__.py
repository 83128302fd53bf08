"""The agent: holds a master key for a while, so that a script is asked once. See docs/adr/0029-agent.md.

One process and one socket for each repository. Never: writes a key anywhere, or gives one to another user.
"""
