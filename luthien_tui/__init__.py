"""The operator's side of luthien: command line and terminal UI."""
