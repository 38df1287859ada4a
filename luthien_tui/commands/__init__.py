"""What the `luthien` command can do beside serving: one file a command. Nothing here imports textual."""
