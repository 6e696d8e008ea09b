"""`python -m image2sentence`: the same as the command `image2sentence`."""

from image2sentence.cli import main

main()
