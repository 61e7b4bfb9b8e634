"""The gateway beside its peers, on one S3 server, in turns within one run: `python -m tests.bench`.

Owns: the benchmark, its processes, mounts and files. Used by: `make bench`; never by a test, because a time is not a truth.
Needs root for caches to be dropped; one contender runs at a time.
"""
