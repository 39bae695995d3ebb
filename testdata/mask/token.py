"""Computes the pinned token of policy/mask's tests without any of its code.

RFC 5869 HKDF-SHA-256 (empty salt) over the secret, then HMAC-SHA-256 over the
value, then the first 100 bits in base32 (RFC 4648), lower case.
"""
import base64, hashlib, hmac

secret, parts = bytes([7]) * 32, ["acme", "phi", "1", "text"]
info = "hoopctl mask token v1" + "".join("\n%d:%s" % (len(p), p) for p in parts)
prk = hmac.new(b"\0" * 32, secret, hashlib.sha256).digest()
key = hmac.new(prk, info.encode() + b"\x01", hashlib.sha256).digest()
mac = hmac.new(key, b"123-45-6789", hashlib.sha256).digest()
print("tok1_" + base64.b32encode(mac).decode().lower()[:20])
