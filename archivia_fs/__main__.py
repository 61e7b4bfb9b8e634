"""`python -m archivia_fs` is the program `archivia-fs`."""

from archivia_fs.cli import main

if __name__ == "__main__":
    main()
