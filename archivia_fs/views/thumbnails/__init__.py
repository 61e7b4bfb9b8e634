"""Thumbnails: a JPEG per picture, from the preview inside it where there is one, so that 80 GB need not be read.

windows     bounded reads of a few places of a huge file      ifd, jpeg   where previews are
facts       what a picture says of itself                     icc         colour profiles as bytes
sampling    some pixels of what is too large to read          reduced     the smaller forms in a TIFF
parts       what is handed to a decoder                       writing     small TIFFs for it
failures    why there is no preview, in one word              versions    what decodes, and whether it may
turns       who may decode now                                memory      what is free for it
worker      the decoder's process                             pool        the gateway's side of it
sandbox     what a decoder may not do                         seccomp     the calls it may make
ways        which ways there are to a preview                 maker       one preview of one file
placeholder what is shown instead
service     made once, stored, cached                         background  after each commit, before anybody asks
view        the tree /Thumbnails
"""

SIDES = (256, 512, 1200)  # pixels: the sizes of previews, by their longer side
PIXELS_MAX = 200_000_000  # of a picture that is decoded as a whole; the largest sensors have 151
