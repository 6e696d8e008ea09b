"""The gallery in a folder: SQLite database and vector file."""
