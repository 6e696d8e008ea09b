"""A gallery in a Milvus database: the same pictures, states, metadata and answers as in a folder."""

from image2sentence.gallery.milvus.address import MilvusAddress
from image2sentence.gallery.milvus.gallery import MilvusGallery

__all__ = ["MilvusAddress", "MilvusGallery"]
