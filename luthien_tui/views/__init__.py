"""The app's views, one a file."""
