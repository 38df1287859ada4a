"""Measures luthien against recorded traffic and labelled data, which stand in a folder named on the command line."""
