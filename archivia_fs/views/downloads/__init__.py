"""The tree /Downloads: every document as one seekable ZIP, as a BagIt bag, and as METS and CSV."""
