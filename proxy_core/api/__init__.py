"""The control API: what an operator's tool may ask of the gateway over HTTP, behind a token, on a port of its own."""
