"""Which labelled crops of a folder are kept for validation."""

import hashlib

from robustscanner.labels import LabelledCrop, read_labels

__all__ = ["LabelledCrop", "is_held_out", "read_labels"]


def is_held_out(crop: LabelledCrop, share: float) -> bool:
    """Whether a crop belongs to the validation part: decided by its name, so the same in every run."""
    digest = hashlib.sha256("/".join(crop.path.parts[-3:]).encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
