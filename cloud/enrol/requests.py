"""What a device may ask to have signed, pure: a small PKCS#10 request for its own name, and nothing else.

The key must be on P-256 or P-384, the request signed with it, the subject exactly CN = the device, and there must be no requested
extension: names, uses and life of a certificate are the cloud's to say.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloud.enrol.refused import RefusedError

LIMIT_BYTES = 4096
CURVES = (ec.SECP256R1, ec.SECP384R1)


def read_request(pem: str, device: str) -> x509.CertificateSigningRequest:
    """RefusedError names what is wrong."""
    if len(pem) > LIMIT_BYTES:
        raise RefusedError(f"the request has {len(pem)} characters, the limit is {LIMIT_BYTES}", 422)
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key, signed, extensions = request.public_key(), request.is_signature_valid, list(request.extensions)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension) as error:
        raise RefusedError("the request cannot be read: expected PKCS#10 in PEM", 422) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise RefusedError(
            "the request's key is too weak or unknown: expected an elliptic curve key on P-256 or P-384", 422
        )
    if not signed:
        raise RefusedError("the request is not signed with its own key", 422)
    names = [(a.oid, a.value) for a in request.subject]
    if names != [(NameOID.COMMON_NAME, device)]:
        raise RefusedError(f"the request is for another name: expected the subject CN={device} and nothing else", 422)
    if extensions:
        raise RefusedError(f"the request asks for {extensions[0].oid.dotted_string}: expected no extensions", 422)
    return request


def key_of(certified: x509.CertificateSigningRequest | x509.Certificate) -> str:
    """SHA-256 of the public key."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(certified.public_key().public_bytes(serialization.Encoding.DER, spki)).hexdigest()


def signed_with(certificate: x509.Certificate, signature: bytes, data: bytes) -> bool:
    """Is `signature` made over `data` with the key of this certificate?"""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
