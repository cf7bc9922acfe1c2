"""Studies, one a file, each with a command and a row in README.md."""
