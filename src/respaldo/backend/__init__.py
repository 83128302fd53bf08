"""Where the objects of a repository lie: the contract of a backend, and the backends there are."""
