"""What the page may do on the computer that the server runs on: index folders, open files. For those on it only."""
