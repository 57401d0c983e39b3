"""Which images may be used, and signatures of images: policy.json, simple signing with GPG, and cosign's signatures.

`policy`, `identity`, `payload`, `registriesd` and `signature` only decide; `gpg`, `sigstore`, `lookaside` and
`attachments` perform. A signature counts only after its bytes were verified: nothing of a payload is read before.
"""
