"""Thumbnails: a JPEG per picture, from the preview inside it where there is one, so that 80 GB need not be read.

windows  bounded reads of a few places of a huge file            ifd, jpeg  where previews are, and facts for people
icc      colour profiles as bytes                                sandbox    what a decoder may not do
worker   the decoder's process                                   pool       the gateway's side of it
maker    one picture of one revision                             service    single flight, cache, background
view     the tree /Thumbnails
"""
