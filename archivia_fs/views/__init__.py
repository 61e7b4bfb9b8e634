"""Views: what is computed from the archive and shown beside it, read-only (see vfs/view.py)."""
