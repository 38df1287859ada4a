"""Passive observers of the traffic."""
