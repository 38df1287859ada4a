"""Control policies: what they are (`base`), how they are run (`chain`, `streaming`), and one file for each."""
