"""The command line: alone in knowing environment, terminal and home; uses `api` and `core`, nothing behind them."""
