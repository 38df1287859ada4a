"""Speed of the gateway, measured beside nginx in one run. `python -m benchmarks --help`."""
