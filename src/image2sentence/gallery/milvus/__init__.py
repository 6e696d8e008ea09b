"""Gallery in a Milvus database, with the interface of a folder's."""

from image2sentence.gallery.milvus.address import MilvusAddress
from image2sentence.gallery.milvus.gallery import MilvusGallery

__all__ = ["MilvusAddress", "MilvusGallery"]
