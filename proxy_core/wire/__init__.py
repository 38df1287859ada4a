"""What the APIs look like: dialects, framing and codecs. Knows nothing of the gateway that uses it."""
