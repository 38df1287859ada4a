"""The record of everything that passed: schema, writer and reader."""
