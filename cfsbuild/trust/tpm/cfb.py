"""AES in CFB mode, with which TPMs encrypt what they hand out."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:  # before cryptography 47
    from cryptography.hazmat.primitives.ciphers.modes import CFB


def encrypt(key: bytes, vector: bytes, data: bytes) -> bytes:
    """Return `data` encrypted; the vector has 16 bytes."""
    encryptor = Cipher(AES(key), CFB(vector)).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def decrypt(key: bytes, vector: bytes, data: bytes) -> bytes:
    """Return `data` decrypted; the vector has 16 bytes."""
    decryptor = Cipher(AES(key), CFB(vector)).decryptor()
    return decryptor.update(data) + decryptor.finalize()
