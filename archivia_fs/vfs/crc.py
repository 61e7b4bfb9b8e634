"""CRC-32 of a concatenation from the CRC-32s of its pieces. Pure arithmetic, no I/O.

Owns: `combine`, `zeros`, `replace`. Used by: uploader, segments, writer. Threading: pure functions.
zlib's crc32_combine is not in Python's zlib; this is the same mathematics: appending n zero bytes multiplies the
CRC's polynomial by x^(8n) modulo P (RFC 1952 section 8 gives P).
"""

from __future__ import annotations

from functools import lru_cache

_POLYNOMIAL = 0xEDB88320  # reflected: bit 31 is x^0
_ONE = 0x80000000


def combine(first: int, second: int, second_size: int) -> int:
    """CRC-32 of A+B, given CRC-32 of A, of B, and the size of B in bytes."""
    return _multiply(_x_to_the_bytes(second_size), first) ^ second


def zeros(size: int) -> int:
    """CRC-32 of `size` zero bytes."""
    return _multiply(_x_to_the_bytes(size), 0xFFFFFFFF) ^ 0xFFFFFFFF


def replace(whole: int, old: int, new: int, after: int) -> int:
    """CRC-32 of a message in which a range was replaced by one of the same size, given the CRC-32 of the message before, of the
    range before and now, and how many bytes follow it. What is around the range need not be known."""
    return whole ^ _multiply(_x_to_the_bytes(after), old ^ new)


def _multiply(a: int, b: int) -> int:
    """a times b modulo P, both reflected."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@lru_cache(maxsize=256)
def _x_to_the_bytes(size: int) -> int:
    """x^(8 * size) modulo P."""
    result, square = _ONE, _ONE >> 8  # x^0, x^8
    while size:
        if size & 1:
            result = _multiply(result, square)
        square = _multiply(square, square)
        size >>= 1
    return result
