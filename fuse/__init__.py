"""The FUSE door: a kernel mount over the Vfs. Owns: everything of trio and pyfuse3. Used by: the app."""
