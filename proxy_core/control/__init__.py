"""What an operator sees and can do: the feed, rows, filters, and the control plane that every front end uses."""
