"""Delivery proof: what the cloud states about a device's records, signed, and how anybody checks it without the cloud.

A proof is text, one JSON object on each line:

    statement   what was produced, delivered, dropped as repeats, given up and is missing, with the device's own newest
                signed checkpoint of each chain
    signature   {"key", "signature"}: Ed25519 of the cloud over `b"gudgeon statement\\n" + statement line`
    records     on demand: every delivered record line, chain by chain, stream by stream, in the order of their numbers
"""

SIGNED_PREFIX = b"gudgeon statement\n"
