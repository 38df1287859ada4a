"""The luthien gateway: data plane, journal and control, free of any user interface."""

__version__ = "0.1.0"
